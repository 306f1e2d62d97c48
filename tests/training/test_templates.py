"""The launch templates of docs/, started as far as a machine without GPUs and Slurm allows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

ROOT = Path(__file__).parents[2]
TRAINING = """
import sys
from pathlib import Path
import torch
from training.launch import start
from training.loop import Loop
from training.rundir import RunDirectory

out, steps = Path(sys.argv[1]), int(sys.argv[2])
accelerator = start("fp32")
main = accelerator.is_main_process
run = RunDirectory(out, made_by="test", config={}, parents={}, main=main)
accelerator.wait_for_everyone()
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loop = Loop(run, accelerator, model, optimizer, steps, 4, lambda step: 0.1, 0, log_every=1, save_every=10**6)
first = loop.resume()
batches = (torch.full((2, 2), float(accelerator.process_index)) for step in range(first, steps))
loop.train(batches, lambda network, batch: network(batch).square().mean())
accelerator.end_training()
"""
SRUN = """#!/bin/bash
# As much of srun as the template uses: starts two tasks and gives the highest status.
shift  # --kill-on-bad-exit=0
for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & tasks="$tasks $!"; done
echo $tasks > "$TASKS"
worst=0
for task in $tasks; do
    wait "$task"; status=$?
    [ "$status" -gt "$worst" ] && worst=$status
done
exit "$worst"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$REQUEUED"; fi
"""


@pytest.fixture
def cluster(tmp_path):
    """Folder for a job, and the environment that a batch script finds on a cluster of one machine with two tasks."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    job = tmp_path / "job"
    (job / ".venv" / "bin").mkdir(parents=True)
    python = job / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (job / "train.py").write_text(TRAINING)
    facts = {"SLURM_SUBMIT_DIR": job, "SLURM_JOB_NODELIST": "here", "SLURM_JOB_ID": os.getpid(), "SLURM_NTASKS": 2}
    environment = os.environ | {name: str(value) for name, value in facts.items()}
    environment |= {"PATH": f"{tools}:{os.environ['PATH']}", "REQUEUED": str(tmp_path / "requeued")}
    environment["TASKS"] = str(tmp_path / "tasks")
    return job, environment | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}


def submit(cluster, *arguments):
    job, environment = cluster
    script = ROOT / "docs" / "slurm" / "pretrain.sbatch"
    return subprocess.Popen(
        ["bash", str(script), "train.py", str(job / "out"), *arguments], env=environment, start_new_session=True
    )


def test_a_preempted_slurm_job_saves_and_is_queued_again(cluster, tmp_path):
    job, _ = cluster
    process = submit(cluster, "100000")
    metrics, deadline = job / "out" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size > 1000) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    for task in (tmp_path / "tasks").read_text().split():  # Slurm signals the tasks, not the batch script
        os.kill(int(task), signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert (tmp_path / "requeued").read_text() == f"requeue {os.getpid()}\n"
    (state,) = (job / "out" / "state").iterdir()
    step = json.loads((state / "state.json").read_text())["step"]
    assert submit(cluster, str(step + 5)).wait(timeout=60) == 0
    records = [json.loads(line) for line in metrics.open()]
    assert [record["step"] for record in records] == list(range(1, step + 6))


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_templates(path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= config.num_machines >= 1

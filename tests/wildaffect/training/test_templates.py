"""The launch templates in docs/, run as far as possible without GPUs and Slurm."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from checkpoints.parent import LAUNCHED
from tests import processes

ROOT = Path(__file__).parents[3]
TRAINING = """
import sys
from pathlib import Path
import torch
from checkpoints.errors import guarded
from wildaffect.training.launch import start
from wildaffect.training.loop import Loop
from wildaffect.training.rundir import RunDirectory

def main():
    out, steps = Path(sys.argv[1]), int(sys.argv[2])
    accelerator = start("fp32")
    run = RunDirectory(out, made_by="test", config={}, parents={}, main=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = Loop(run, accelerator, model, optimizer, steps, 4, lambda step: 0.1, 0, log_every=1, save_every=10**6)
    first = loop.resume()
    batches = (torch.full((2, 2), float(accelerator.process_index)) for step in range(first, steps))
    loop.train(batches, lambda network, batch: network(batch).square().mean())
    accelerator.end_training()


guarded(main)
"""
TOLD = """
import json, os, sys
with open(os.path.join(sys.argv[1], os.environ["RANK"]), "w") as file:
    json.dump(dict(os.environ), file)
"""
SRUN = """#!/bin/bash
# As much of srun as the template uses: starts two tasks and gives the highest status.
shift  # --kill-on-bad-exit=1
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
    """A job's folder, and the environment of a batch script on one machine with two tasks."""
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
    facts |= {"SLURM_CPUS_PER_TASK": 3, "SLURM_JOB_NUM_NODES": 2}
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


@pytest.mark.parametrize("script", ["pretrain", "preprocess"])
def test_tasks_get_the_cores_that_the_job_asks_for(cluster, tmp_path, script):
    _, environment = cluster
    (tmp_path / "bin" / "srun").write_text('#!/bin/bash\necho "$SRUN_CPUS_PER_TASK cores"\n')  # as srun since 22.05
    command = ["bash", str(ROOT / "docs" / "slurm" / f"{script}.sbatch"), "a", "b"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "3 cores\n"


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_templates(path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= config.num_machines >= 1


@pytest.fixture
def launch():
    """Starts `accelerate launch` with a template, adapted for CPUs as docs/cluster.md says."""
    started = []

    def start(template, *words):
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--config_file"]
        command += [str(ROOT / "docs" / "accelerate" / template), *map(str, words)]
        environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        started.append(subprocess.Popen(command, env=environment, **settings))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def printed(process):
    text = process.communicate(timeout=300)[0]
    assert process.returncode == 0, text
    return text


def test_one_machine_as_accelerate_launches_it(launch, tmp_path):
    """What it tells its processes; that these then train together, the next test shows."""
    (tmp_path / "train.py").write_text(TOLD)
    printed(launch("one_node.yaml", "--main_process_port", "0", tmp_path / "train.py", tmp_path))
    told = [json.loads((tmp_path / rank).read_text()) for rank in "01"]
    assert [part["LOCAL_RANK"] for part in told] == ["0", "1"] and {part["WORLD_SIZE"] for part in told} == {"2"}
    assert told[0]["MASTER_PORT"] == told[1]["MASTER_PORT"] != "0"


def test_two_machines_as_accelerate_launches_them(launch, tmp_path):
    (tmp_path / "train.py").write_text(TRAINING)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--main_process_ip", "127.0.0.1", "--main_process_port", port]
    script = [tmp_path / "train.py", tmp_path / "out", "2"]
    machines = [launch("many_nodes.yaml", "--machine_rank", rank, *where, *script) for rank in (0, 1)]
    assert all("2 process(es)" in printed(machine) for machine in machines)
    assert len((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()) == 2


def children_of(process):
    return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def still_running(pids):
    """Those of some processes that have not ended; nobody may have waited for them."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()]


def test_a_trainer_does_not_outlive_its_launcher(tmp_path):
    """`accelerate launch` for one process waits for its child and ends on SIGTERM, as this launcher does."""
    (tmp_path / "train.py").write_text(TRAINING)
    code = (
        "import os, runpy, sys; sys.argv = sys.argv[1:]; child = os.fork()\n"
        "os.waitpid(child, 0) if child else runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = ["-c", code, tmp_path / "train.py", tmp_path / "out", "100000000"]
    launcher = processes.start(*command, env=environment | {LAUNCHED[1]: "default"})
    try:
        metrics, deadline = tmp_path / "out" / "metrics.jsonl", time.monotonic() + 120
        while not (metrics.exists() and metrics.stat().st_size > 1000) and time.monotonic() < deadline:
            assert launcher.poll() is None
            time.sleep(0.05)
        trainers = children_of(launcher)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=60) == -signal.SIGTERM
        while still_running(trainers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert trainers and not still_running(trainers)
        assert list((tmp_path / "out" / "state").glob("step_*"))  # saved, though `save_every` is far away
    finally:
        for pid in [*children_of(launcher)] if launcher.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        if launcher.poll() is None:
            launcher.kill()

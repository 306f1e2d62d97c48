"""Stage 1 from end to end on a small store: resuming, kills, two processes, refusals."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoints.artifact import file_hash, write_sealed
from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from checkpoints.tensors import load_tensors
from pretrain.build import load_mae
from pretrain.probe import Probe
from pretrain.recipes import DEMO
from pretrain.run import main
from tests import processes
from tests.pretrain.corpus import make_store
from wildaffect.training.launch import start

ROOT = Path(__file__).parents[2]
TINY = {"image_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2, "decoder_dim": 16, "decoder_depth": 1}
TINY |= {"decoder_heads": 2, "batch_size": 8, "steps": 8, "save_every": 2, "log_every": 1, "workers": 0}
TINY |= {"precision": "fp32"}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "faces", [*range(7), None, *range(8, 30)])


@pytest.fixture(scope="module")
def uninterrupted(faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "whole"
    main(replace(DEMO, faces=(faces,), out=out, **TINY))
    return out


def arguments(faces, out):
    changed = [f"--{key.replace('_', '-')}={value}" for key, value in TINY.items()]
    return [str(ROOT / "pretrain" / "run.py"), "demo", "--faces", str(faces), "--out", str(out), *changed]


def weights(run):
    return {name: (run / "encoder" / f"{name}.safetensors").read_bytes() for name in ("model", "decoder")}


def test_product(uninterrupted):
    finished = json.loads((uninterrupted / "finished.json").read_text())
    records = [json.loads(line) for line in (uninterrupted / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 9))
    assert finished["steps"] == 8 and finished["loss"] == records[-1]["loss"] < records[0]["loss"]
    encoder = load_encoder(uninterrupted)
    assert encoder.provenance["unlabelled_videos"] == ["v0", "v1", "v2"]
    assert encoder.provenance["synthetic"] is True
    assert "data:image/png" in (uninterrupted / "report.html").read_text()
    assert load_mae(uninterrupted).mask_ratio == 0.75


def test_pictures_of_the_run_as_it_went(uninterrupted):
    names = sorted(path.name for path in (uninterrupted / "pictures").iterdir())
    assert names == [f"step_{step:08d}.png" for step in range(1, 9)]  # eight steps, ten looks: each
    with Image.open(uninterrupted / "pictures" / names[-1]) as grid:
        assert grid.size == (3 * 32, 4 * 32)
        masked, predicted, original = np.split(np.asarray(grid).astype(int), 3, axis=1)
    assert (masked != original).any(-1).mean() > 0.6 and (predicted != masked).any()
    assert "The same faces as training went on" in (uninterrupted / "report.html").read_text()


def test_weighted_stores_with_a_probe_resume_as_if_nothing_had_been(faces, tmp_path, monkeypatch):
    from wildaffect.training.loop import Loop

    other = make_store(tmp_path / "other", range(500, 512))
    lines = [f"v{n // 10},{n % 10 + 1},{n % 3},{'train' if n < 20 else 'validation'}" for n in range(30)]
    (tmp_path / "labels.csv").write_text("\n".join(["video,frame,expression,split", *lines]) + "\n")
    probe = {"probe_faces": faces, "probe_labels": tmp_path / "labels.csv", "looks": 4}
    settings = {**TINY, **probe, "faces": (faces, other), "weights": (1.0, 2.0)}
    whole = main(replace(DEMO, out=tmp_path / "whole", **settings))
    assert [store["share"] for store in whole["stores"]] == pytest.approx([14 / 41, 27 / 41])
    best = load_encoder(tmp_path / "whole" / "best")
    probe = Probe(faces, tmp_path / "labels.csv", 32).score(best)
    assert probe["probe_linear"] == pytest.approx(whole["probe_linear"], abs=1e-6)
    assert probe["probe_knn"] == pytest.approx(whole["probe_knn"], abs=1e-6)
    records = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    scores = {record["step"]: record["probe_linear"] for record in records if "probe_linear" in record}
    assert len(scores) == 4 and whole["probe_linear"] == max(scores.values()) == scores[whole["probe_step"]]
    assert best.provenance["pictures_seen"] == 8 * whole["probe_step"]
    assert best.provenance["chosen_on"] == {"expr": ["v0", "v1", "v2"]}
    assert load_encoder(tmp_path / "whole").provenance["chosen_on"] == {}  # the last weights, which nothing chose
    main(replace(DEMO, out=tmp_path / "next", faces=(faces,), init=tmp_path / "whole" / "best", **TINY))
    assert load_encoder(tmp_path / "next").provenance["chosen_on"] == best.provenance["chosen_on"]
    log = Loop._log
    monkeypatch.setattr(Loop, "_log", lambda self, *a: (log(self, *a), self.step == 5 and os.kill(os.getpid(), 15)))
    with pytest.raises(SystemExit):
        main(replace(DEMO, out=tmp_path / "stopped", **settings))
    monkeypatch.undo()
    again = main(replace(DEMO, out=tmp_path / "stopped", **settings))
    assert again == whole and weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    best = [(tmp_path / run / "best" / "model.safetensors").read_bytes() for run in ("whole", "stopped")]
    assert best[0] == best[1]


def test_half_a_probe_is_refused(faces, tmp_path):
    with pytest.raises(UserError, match="belong together"):
        main(replace(DEMO, faces=(faces,), out=tmp_path / "o", probe_faces=faces, **TINY))


def test_a_finished_run_is_left_alone(uninterrupted, faces, capsys):
    before = (uninterrupted / "encoder" / "model.safetensors").stat().st_mtime_ns
    main(replace(DEMO, faces=(faces,), out=uninterrupted, **TINY))
    assert "is finished" in capsys.readouterr().out
    assert (uninterrupted / "encoder" / "model.safetensors").stat().st_mtime_ns == before


def test_killed_and_resumed_equals_uninterrupted(uninterrupted, faces, tmp_path):
    out = tmp_path / "killed"
    code = (
        "import os, runpy, sys; from wildaffect.training.loop import Loop; save = Loop.save\n"
        "def kill(loop):\n"
        "    save(loop)\n"
        "    if loop.step == 4: os.kill(os.getpid(), 9)\n"
        "Loop.save = kill; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    assert processes.run("-c", code, *arguments(faces, out)).returncode == -signal.SIGKILL
    assert (out / "state").exists() and not (out / "finished.json").exists()
    main(replace(DEMO, faces=(faces,), out=out, **TINY))
    assert weights(out) == weights(uninterrupted)
    losses = [[json.loads(line)["loss"] for line in (run / "metrics.jsonl").open()] for run in (out, uninterrupted)]
    assert losses[0] == losses[1]


def test_sigterm_saves_and_the_same_command_goes_on(uninterrupted, faces, tmp_path, monkeypatch):
    from wildaffect.training.loop import PREEMPTED, Loop

    out = tmp_path / "preempted"
    log = Loop._log

    def terminate(self, *args):
        log(self, *args)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Loop, "_log", terminate)
    with pytest.raises(SystemExit) as stop:
        main(replace(DEMO, faces=(faces,), out=out, **TINY))
    assert stop.value.code == PREEMPTED
    monkeypatch.undo()
    main(replace(DEMO, faces=(faces,), out=out, **TINY))
    assert weights(out) == weights(uninterrupted)


def test_two_processes_follow_the_same_curve(uninterrupted, faces, tmp_path):
    out = tmp_path / "two"
    processes.run_ranks(*arguments(faces, out))
    losses = [[json.loads(line)["loss"] for line in (run / "metrics.jsonl").open()] for run in (out, uninterrupted)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    ours, theirs = (load_tensors(run / "encoder" / "model.safetensors") for run in (out, uninterrupted))
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) < 1e-3


def test_a_launch_that_accelerate_does_not_see_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="started 2 processes but Accelerate sees 1"):
        start("fp32")


def test_another_setting_in_the_same_directory_is_refused(uninterrupted, faces):
    changed = TINY | {"mask_ratio": 0.5}
    with pytest.raises(UserError, match=r"mask_ratio is 0\.75, now it is 0\.5"):
        main(replace(DEMO, faces=(faces,), out=uninterrupted, **changed))


def test_continuing_from_weights(uninterrupted, faces, tmp_path):
    out = tmp_path / "more"
    summary = main(replace(DEMO, faces=(faces,), out=out, init=uninterrupted, **TINY))
    before = json.loads((uninterrupted / "metrics.jsonl").read_text().splitlines()[0])
    after = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert after["loss"] < before["loss"]
    assert load_encoder(out).provenance["pictures_seen"] == 2 * summary["pictures_seen"]


def test_non_finite_loss_stops_with_the_state_before_it(faces, tmp_path):
    settings = TINY | {"lr": 1e9}
    with pytest.raises(UserError, match="of step"):
        main(replace(DEMO, faces=(faces,), out=tmp_path / "nan", **settings))
    report = json.loads((tmp_path / "nan" / "non_finite.json").read_text())
    assert (tmp_path / "nan" / "state" / f"step_{report['step'] - 1:08d}").is_dir()
    assert len(report["samples_by_process"][0]) == 8 and "video v" in report["samples_by_process"][0][0]


def test_missing_store_and_foreign_init_are_named(faces, uninterrupted, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        main(replace(DEMO, faces=(tmp_path / "no",), out=tmp_path / "a", **TINY))
    (uninterrupted / "encoder" / "decoder.safetensors").rename(tmp_path / "decoder")
    try:
        with pytest.raises(UserError, match=r"decoder\.safetensors cannot be read"):
            main(replace(DEMO, faces=(faces,), out=tmp_path / "b", init=uninterrupted, **TINY))
    finally:
        (tmp_path / "decoder").rename(uninterrupted / "encoder" / "decoder.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 33}, "--image-size 33 is not a multiple of --patch-size 8"),
        ({"decoder_heads": 3}, "--decoder-dim 16 is not a multiple of --decoder-heads 3"),
        ({"mask_ratio": 0.99}, "--mask-ratio 0.99 of 16 patches hides all of them or none"),
        ({"steps": -3}, "--steps -3: expected 0 or more"),
        ({"faces": ()}, "--faces names no store"),
    ],
)
def test_sizes_that_do_not_go_together_are_named_and_can_be_put_right(faces, tmp_path, changes, said):
    """A refused command leaves nothing that blocks the corrected one."""
    with pytest.raises(UserError, match=said):
        main(replace(DEMO, **{"faces": (faces,), "out": tmp_path / "run", **TINY, **changes}))
    assert main(replace(DEMO, **{"faces": (faces,), "out": tmp_path / "run", **TINY, "steps": 1}))["steps"] == 1


def test_runs_of_another_version_and_on_another_machine(uninterrupted, faces, tmp_path):
    """A run whose header lacks a newer setting is resumed; a finished one can be read on other hardware."""
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    header = json.loads((out / "config.json").read_text())
    header["config"] |= {"arithmetic": "bf16", "of_yesterday": 1}
    del header["config"]["clip_grad"]
    write_sealed(out / "config.json", header)
    finished = json.loads((out / "finished.json").read_text())
    finished["files"]["config.json"] = file_hash(out / "config.json")
    write_sealed(out / "finished.json", finished)
    assert main(replace(DEMO, faces=(faces,), out=out, **TINY))["steps"] == 8
    (out / "finished.json").unlink()
    with pytest.raises(UserError, match="whose setting arithmetic is 'bf16', now it is 'fp32'"):
        main(replace(DEMO, faces=(faces,), out=out, **TINY))


def test_a_run_at_work_is_not_taken_over(faces, tmp_path, monkeypatch):
    """Not even before its first record."""
    from wildaffect.training.loop import Loop

    monkeypatch.setattr(Loop, "_forward_backward", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        main(replace(DEMO, faces=(faces,), out=tmp_path / "run", **TINY))
    with pytest.raises(UserError, match="holds a run whose setting lr is"):
        main(replace(DEMO, **{"faces": (faces,), "out": tmp_path / "run", **TINY, "lr": 1.0}))


def test_how_the_work_is_done_may_change_when_a_run_goes_on(faces, tmp_path, monkeypatch):
    from wildaffect.training.loop import Loop

    out, log = tmp_path / "run", Loop._log
    monkeypatch.setattr(Loop, "_log", lambda self, *a: (log(self, *a), self.step == 3 and os.kill(os.getpid(), 15)))
    with pytest.raises(SystemExit):
        main(replace(DEMO, faces=(faces,), out=out, **TINY))
    monkeypatch.undo()
    with pytest.raises(UserError, match="whose setting lr is"):
        main(replace(DEMO, **{"faces": (faces,), "out": out, **TINY, "lr": 1.0}))
    with pytest.raises(UserError, match="is a run that is not finished: run the same command again"):
        load_encoder(out)
    changed = {**TINY, "workers": 1, "micro_batch_size": 4, "log_every": 2, "save_every": 3}
    assert main(replace(DEMO, faces=(faces,), out=out, **changed))["steps"] == 8

"""The training loop alone, on a line fitted to points: what it saves, refuses and compiles."""

import json
import os
import shutil
import signal

import pytest
import torch

from checkpoints.errors import UserError
from checkpoints.state import load_state
from wildaffect.training.launch import start
from wildaffect.training.loop import PREEMPTED, Loop
from wildaffect.training.rundir import RunDirectory


def make_loop(path, **settings):
    run = RunDirectory(path, made_by="test", config={}, parents={})
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return Loop(
        run=run,
        accelerator=start("fp32"),
        model=model,
        optimizer=optimizer,
        batch_size=4,
        lr_at=lambda step: 0.1,
        seed=0,
        **{"steps": 4, "save_every": 1, "log_every": 1, **settings},
    )


def batches(first=0, last=4):
    return [torch.randn(4, 2, generator=torch.Generator().manual_seed(step)) for step in range(first, last)]


def loss_of(model, batch):
    return (model(batch) - batch.sum(1, keepdim=True)).square().mean()


def test_records(tmp_path):
    loop = make_loop(tmp_path, flops=10.0)
    loop.train(batches(), loss_of)
    records = loop.run.metrics()
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert all(record["grad_norm"] > 0 and record["tflops"] > 0 for record in records)


def test_a_compiled_run_saves_the_same_weights_under_the_same_names(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler here")
    plain, compiled = make_loop(tmp_path / "plain"), make_loop(tmp_path / "compiled", compile=True)
    for loop in (plain, compiled):
        loop.train(batches(), loss_of)
    _, ours, _ = load_state(compiled.run.state)
    _, theirs, _ = load_state(plain.run.state)
    assert ours["model"].keys() == theirs["model"].keys() == {"weight", "bias"}
    torch.testing.assert_close(ours["model"], theirs["model"])


def exploding(where):
    """A loss that is not finite in the third batch, or whose gradient alone is not."""
    bad = batches()[2]

    def loss(model, batch):
        value = loss_of(model, batch)
        if not torch.equal(batch, bad):
            return value
        return value / 0 if where == "loss" else value + (model.weight.sum() * 0).sqrt()

    return loss


@pytest.mark.parametrize(("where", "message"), [("loss", "loss of step 3 is inf"), ("gradient", "gradient of step 3")])
def test_a_bad_step_is_refused_and_can_be_replayed(tmp_path, where, message):
    named = [{"x": batch, "names": [f"picture {step}-{n}" for n in range(4)]} for step, batch in enumerate(batches())]
    loop, explode = make_loop(tmp_path), exploding(where)
    with pytest.raises(UserError, match=message):
        loop.train(named, lambda model, batch: explode(model, batch["x"]))
    report = json.loads((tmp_path / "non_finite.json").read_text())
    assert report["step"] == 3 and report["samples_by_process"] == [[f"picture 2-{n}" for n in range(4)]]
    step, groups, _ = load_state(loop.run.state)
    assert step == 2 and all(torch.isfinite(w).all() for w in groups["model"].values())
    again = make_loop(tmp_path)  # the same command: exactly this step, refused again
    assert again.resume() == 2
    with pytest.raises(UserError, match=message):
        again.train(batches(2), exploding(where))
    mended = make_loop(tmp_path)
    mended.resume()
    mended.train(batches(2), loss_of)
    whole = make_loop(tmp_path / "whole")
    whole.train(batches(), loss_of)
    assert torch.equal(mended.model.weight, whole.model.weight)


def test_gradients_are_clipped_to_the_norm(tmp_path):
    loop = make_loop(tmp_path, clip_grad=1e-3, steps=1)
    norms = []
    loop.optimizer.step = lambda: norms.append(loop.model.weight.grad.norm().item())
    loop.train(batches(), loss_of)
    assert norms[0] <= 1e-3 < loop.run.metrics()[0]["grad_norm"]


@pytest.mark.parametrize("moment", ["in the collective", "after the step"])
def test_a_sigterm_at_any_moment_ends_the_run(tmp_path, monkeypatch, moment):
    """All processes stop after the same step, so a signal takes effect only after a collective."""
    loop = make_loop(tmp_path, save_every=10)

    def after_step(step):
        if moment == "after the step" and step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    reduce, calls = loop.accelerator.reduce, []

    def interrupted(pair, reduction):
        calls.append(pair)
        if moment == "in the collective" and len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return reduce(pair, reduction=reduction)

    monkeypatch.setattr(loop.accelerator, "reduce", interrupted)
    with pytest.raises(SystemExit) as ended:
        loop.train(batches(), loss_of, after_step)
    assert ended.value.code == PREEMPTED
    assert load_state(loop.run.state)[0] == loop.step == 3


def test_broken_pictures_are_counted_and_too_many_end_the_run(tmp_path, capsys):
    loop = make_loop(tmp_path, steps=8)
    named = [{"x": batch, "skipped": [f"picture {n}"] if n % 2 else []} for n, batch in enumerate(batches(0, 8))]
    with pytest.raises(UserError, match=r"4 of 32 pictures cannot be decoded"):
        loop.train(named, lambda model, batch: loss_of(model, batch["x"]))
    assert "skipped a bad picture: picture 3" in capsys.readouterr().out
    assert load_state(loop.run.state)[2]["bad_pictures"] == 3


def test_broken_pictures_of_all_processes_count(tmp_path, monkeypatch):
    """What other processes could not decode is counted through the collective."""
    loop = make_loop(tmp_path, steps=3)
    monkeypatch.setattr(loop.accelerator, "reduce", lambda told, reduction: told + torch.tensor([0.0, 0.0, 1.0]))
    loop.train(batches(0, 3), loss_of)
    assert loop.facts["bad_pictures"] == 3


@pytest.mark.parametrize("killed_after", [1, 2, 3, 5, 6])
def test_a_killed_run_records_what_an_uninterrupted_one_does(tmp_path, killed_after):
    """Also where a record averages over steps from before and after the kill."""
    settings = {"steps": 7, "log_every": 3, "save_every": 1}
    whole = make_loop(tmp_path / "whole", **settings)
    whole.train(batches(0, 7), loss_of)
    killed = make_loop(tmp_path / "killed", **settings)
    with pytest.raises(StopIteration):
        killed.train(batches(0, killed_after), loss_of)
    again = make_loop(tmp_path / "killed", **settings)
    again.train(batches(again.resume(), 7), loss_of)
    kept = ("step", "loss", "grad_norm")
    records = [[{key: record[key] for key in kept} for record in loop.run.metrics()] for loop in (whole, again)]
    assert records[0] == records[1] and len(records[0]) == 3
    assert again.facts["loss"] == whole.facts["loss"] == records[0][-1]["loss"]


@pytest.mark.parametrize("damage", ["deleted", "cut", "not text", "other json"])
def test_records_that_are_gone_do_not_stop_a_run(tmp_path, damage):
    loop = make_loop(tmp_path)
    with pytest.raises(StopIteration):
        loop.train(batches(0, 2), loss_of)
    path = tmp_path / "metrics.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    left = {"cut": first + second[:9], "not text": first + b"\xff\xfe\n" + second, "other json": b"[1]\n3\n" + second}
    path.unlink()
    if damage in left:
        path.write_bytes(left[damage])
    again = make_loop(tmp_path)
    again.train(batches(again.resume(), 4), loss_of)
    steps = {"deleted": [3, 4], "cut": [1, 3, 4], "not text": [1, 2, 3, 4], "other json": [2, 3, 4]}
    assert [record["step"] for record in again.run.metrics()] == steps[damage]

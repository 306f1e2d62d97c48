import json

import pytest
import torch

from checkpoints.errors import UserError
from wildaffect.training.launch import choose_precision, chosen_precision, start, track
from wildaffect.training.rundir import RunDirectory


def run_directory(path):
    return RunDirectory(path, made_by="test", config={}, parents={})


@pytest.mark.parametrize("precision", ["bf16", "fp32", "bf16"])
def test_runs_of_one_process_may_differ_in_precision(precision):
    accelerator = start(precision)
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    with accelerator.autocast():
        dtype = model(torch.ones(1, 2)).dtype
    assert dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    assert chosen_precision(accelerator) == precision
    exact = model(torch.ones(1, 2))
    result = accelerator.prepare_model(model)(torch.ones(1, 2))
    assert result.dtype == torch.float32 and torch.equal(result, exact) == (precision == "fp32")


def test_an_older_torch_that_cannot_name_the_cpus_abilities_means_fp32(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    precision, reason = choose_precision("auto")
    assert precision == "fp32" and torch.__version__ in reason


@pytest.mark.usefixtures("notebook_tracker")
def test_a_tracker_hears_the_settings_and_every_record(tmp_path):
    accelerator = start("fp32", "tensorboard", tmp_path)
    run = run_directory(tmp_path)
    track(accelerator, run, {"lr": 0.1, "faces": (tmp_path,)})
    run.log({"step": 3, "loss": 0.5})
    settings, record = [json.loads(line) for line in (tmp_path / "notebook.jsonl").open()]
    assert settings == [None, {"lr": 0.1, "faces": str((tmp_path,))}]
    assert record == [3, {"loss": 0.5}]
    assert run.metrics() == [{"step": 3, "loss": 0.5}]


def test_without_a_tracker_records_go_to_the_run_alone(tmp_path):
    run = run_directory(tmp_path)
    track(start("fp32"), run, {})
    run.log({"step": 1})
    assert run.metrics() == [{"step": 1}]


def test_a_tracker_that_is_not_there_is_named(monkeypatch):
    with pytest.raises(UserError, match=r"has no tracker 'papyrus': choose one of .*tensorboard"):
        start("fp32", "papyrus")
    monkeypatch.setattr("wildaffect.training.launch.get_available_trackers", list)
    with pytest.raises(UserError, match="pip install comet-ml"):
        start("fp32", "comet_ml")


def test_the_precision_is_that_of_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert choose_precision("auto", torch.device("cpu"))[0] == "fp32"
    assert choose_precision("auto", torch.device("cuda"))[0] == "bf16"

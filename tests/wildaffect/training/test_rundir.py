import pytest

from checkpoints.errors import UserError
from wildaffect.training.rundir import RunDirectory


def test_a_finished_run_is_compared_with_what_it_left(tmp_path):
    def run():
        return RunDirectory(tmp_path / "run", made_by="x.py", config={"a": 1}, parents={})

    first = run()
    first.begin()
    product = first.path / "head" / "model.safetensors"
    for path in (product, first.path / "state" / "s.json", first.path / "report.html"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("weights")
    first.finish({"loss": 1.0})
    for path in (first.path / "state" / "s.json", first.path / "report.html"):
        path.unlink()  # neither is part of the result
    assert run().finished["loss"] == 1.0
    product.write_text("other w")
    with pytest.raises(UserError, match=r"head/model\.safetensors was changed after .*finished\.json"):
        assert run().finished
    product.unlink()
    with pytest.raises(UserError, match=r"head/model\.safetensors cannot be read"):
        assert run().finished


def test_damaged_records_end_the_list(tmp_path):
    run = RunDirectory(tmp_path / "run", made_by="x.py", config={}, parents={})
    run.log({"step": 1})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": true}\n\xff\xfe\n')
    assert run.metrics() == [{"step": 1}]

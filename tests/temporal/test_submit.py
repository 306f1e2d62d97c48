import numpy as np
import pytest

from checkpoints.errors import UserError
from temporal import evaluate, run, submit
from temporal.submission import compared
from tests.temporal.corpus import TEST
from wildaffect.tasks import TASKS
from wildaffect.tasks.challenge import parts, read_challenge_file


@pytest.fixture(scope="module")
def files(corpus, runs, tmp_path_factory):
    """Challenge files by form."""
    folder = tmp_path_factory.mktemp("files")
    for form in ("va", "expr", "au", "mtl"):
        heads = tuple(runs / name for name in parts(form))
        example = corpus / "release" / "test_set_examples" / f"{form}.txt"
        options = {"heads": heads, "features": (corpus / "cache",), "example": example, "out": folder / f"{form}.txt"}
        submit.main(submit.Submit(**options))
    return folder


@pytest.mark.parametrize("form", ["va", "expr", "au", "mtl"])
def test_written_files_are_valid(files, corpus, form, capsys):
    example = corpus / "release" / "test_set_examples" / f"{form}.txt"
    result = submit.main(submit.Submit(check=files / f"{form}.txt", example=example))
    assert result == {"form": form, "frames": 3 if form == "mtl" else sum(TEST.values())}
    assert f"is a valid {form} challenge file" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["va", "expr", "au"])
def test_written_files_are_scored_against_the_answers(files, corpus, task, tmp_path):
    options = {"task": task, "predictions": files / f"{task}.txt", "labels": corpus / "answers" / task}
    result = evaluate.main(evaluate.Evaluate(**options, json=tmp_path / "s.json", report=tmp_path / "r.html"))
    assert result["score"] > result["chance"] and result["ci_low"] <= result["score"] <= result["ci_high"]
    assert (tmp_path / "s.json").exists() and "<img" in (tmp_path / "r.html").read_text()


def test_the_answers_of_all_tasks_may_lie_side_by_side(files, corpus):
    with pytest.raises(UserError, match="has no va prediction for frame 2 of test1"):  # sparse: it holds three frames
        evaluate.main(evaluate.Evaluate(task="mtl", predictions=files / "mtl.txt", labels=corpus / "answers"))


def test_a_joint_head_fills_an_mtl_file(runs, corpus, tmp_path):
    example = corpus / "release" / "test_set_examples" / "mtl.txt"
    out = tmp_path / "mtl.txt"
    submit.main(submit.Submit(heads=(runs / "joint",), features=(corpus / "cache",), example=example, out=out))
    assert len(read_challenge_file(out, "mtl").index.locations) == 3
    assert out.read_text().splitlines()[1].startswith("test1/00001.jpg,")


def test_several_heads_are_averaged(settings, runs, corpus, tmp_path):
    from temporal.caches import open_caches
    from temporal.heads import load_heads
    from temporal.predict import predict_cached

    run.main(settings("va", tmp_path / "other", seed=1, epochs=2))
    caches = open_caches([corpus / "cache"])
    heads = load_heads([runs / "va", tmp_path / "other"])
    both, _ = predict_cached(heads, caches, "test1", 20)
    single = [predict_cached([head], caches, "test1", 20)[0]["va"] for head in heads]
    np.testing.assert_allclose(both["va"], np.mean(single, axis=0), atol=1e-6)
    assert not np.allclose(single[0], single[1])


def test_a_sequence_that_was_never_seen_gets_the_mean_of_the_others(runs, corpus, tmp_path, capsys):
    example = tmp_path / "example.txt"
    listed = (corpus / "release" / "test_set_examples" / "va.txt").read_text()
    example.write_text(listed + "unknown/00001.jpg,0,0\nunknown/00002.jpg,0,0\n")
    made = {"heads": (runs / "va",), "features": (corpus / "cache",), "example": example, "out": tmp_path / "o.txt"}
    submit.main(submit.Submit(**made))
    assert "have no face in any frame (unknown): their frames get the mean" in capsys.readouterr().out
    lines = (tmp_path / "o.txt").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    values = np.array([[float(x) for x in row[1:]] for row in rows if not row[0].startswith("unknown")])
    filled = np.array([[float(x) for x in row[1:]] for row in rows if row[0].startswith("unknown")])
    assert filled.shape == (2, 2)
    assert filled == pytest.approx(np.broadcast_to(values.mean(axis=0), (2, 2)), abs=0.01)


def test_faults(runs, corpus, tmp_path):
    example = corpus / "release" / "test_set_examples" / "va.txt"
    good = {"heads": (runs / "va",), "features": (corpus / "cache",), "example": example, "out": tmp_path / "o.txt"}
    with pytest.raises(UserError, match="of another encoder, view or framing"):
        submit.main(submit.Submit(**good | {"features": (corpus / "view",)}))
    with pytest.raises(UserError, match="none of the heads predicts va"):
        submit.main(submit.Submit(**good | {"heads": (runs / "au",)}))
    with pytest.raises(UserError, match="pass --heads, --features and --out"):
        submit.main(submit.Submit(example=example))
    with pytest.raises(UserError, match="head"):
        submit.main(submit.Submit(**good | {"heads": (corpus / "cache",)}))
    (tmp_path / "example.txt").write_text(f"{example.read_text().splitlines()[0]}\nunknown/00001.jpg,0,0\n")
    with pytest.raises(UserError, match=r"lacks 1 of 1 sequences \(unknown\)"):
        submit.main(submit.Submit(**good | {"example": tmp_path / "example.txt"}))
    (tmp_path / "example.txt").write_text("image_location,nonsense\n")
    with pytest.raises(UserError, match="not a challenge file's header"):
        submit.main(submit.Submit(**good | {"example": tmp_path / "example.txt"}))
    assert not (tmp_path / "o.txt").exists()
    for task in TASKS:
        assert compared(task, 3).startswith(" (the 6th ABAW's")
    assert "as many as" in compared("va", 927_210)

"""`temporal/tune.py`: what it writes is what the other commands use."""

import numpy as np
import pytest

from checkpoints.errors import UserError
from temporal import evaluate, run, submit
from temporal.caches import open_caches
from temporal.heads import head_directories, load_head, load_heads
from temporal.predict import predict_cached, thresholds_of
from temporal.tune import Tune, main
from tests.temporal.corpus import VALIDATION


@pytest.fixture(scope="module")
def tuned(settings, runs, corpus, tmp_path_factory):
    """Options of a finished search over two heads for valence and arousal and one for action units; its result."""
    folder = tmp_path_factory.mktemp("tune")
    run.main(settings("va", folder / "other", seed=1, epochs=2))
    heads = (runs / "va", folder / "other", runs / "au")
    options = {"heads": heads, "features": (corpus / "cache",), "labels": corpus / "release", "folds": 3}
    return options, folder / "tuned", main(Tune(**options, out=folder / "tuned"))


def test_the_heads_have_what_was_chosen(tuned, corpus):
    options, out, result = tuned
    assert {task: part["videos"] for task, part in result.items()} == {"va": 3, "au": 3}
    shares = result["va"]["setting"]["shares"]
    written = {path.parent.name: load_head(path) for path in head_directories(out)}
    kept = [f"tuned{n}" for n, share in enumerate(shares) if share]
    assert list(written) == [*kept, "tuned2"]
    for name in kept:
        assert written[name].share("va") == pytest.approx(shares[int(name[-1])], abs=1e-4)
    np.testing.assert_allclose(thresholds_of([written["tuned2"]]), result["au"]["setting"]["thresholds"], atol=1e-4)
    for head in written.values():
        assert set(VALIDATION) <= set(head.trained_on) and head.record["validation"] is None
    old, new = options["heads"][2] / "head", out / "tuned2" / "head"
    places = [(path / load_head(path).inputs[0].encoder).resolve() for path in (old, new)]
    assert places[0] == places[1]


def test_submissions_average_by_share(tuned, settings, corpus, tmp_path):
    _, out, _ = tuned
    heads = [head for head in load_heads([out]) if head.name == "va"]
    heads = heads if len(heads) == 2 else [heads[0], load_head(tuned[0]["heads"][1])]
    heads[0].shares, heads[1].shares = {"va": 0.75}, {"va": 0.25}
    caches = open_caches([corpus / "cache"])
    single = [predict_cached([head], caches, "test1", 20)[0]["va"] for head in heads]
    both = predict_cached(heads, caches, "test1", 20)[0]["va"]
    np.testing.assert_allclose(both, 0.75 * single[0] + 0.25 * single[1], atol=1e-6)
    heads[0].shares = {"va": 0.0}
    np.testing.assert_allclose(predict_cached(heads, caches, "test1", 20)[0]["va"], single[1], atol=1e-6)
    np.testing.assert_allclose(predict_cached(heads[:1], caches, "test1", 20)[0]["va"], single[0], atol=1e-6)
    example = corpus / "release" / "test_set_examples" / "va.txt"
    submit.main(submit.Submit(heads=(out,), features=(corpus / "cache",), example=example, out=tmp_path / "va.txt"))
    answers = {"labels": corpus / "answers" / "va", "heads": (out,)}
    assert evaluate.main(evaluate.Evaluate(task="va", predictions=tmp_path / "va.txt", **answers))["score"] > 0.2


def test_what_chose_may_not_be_used_again(tuned):
    options, out, _ = tuned
    with pytest.raises(UserError, match="holds tuned heads"):
        main(Tune(**options, out=out))
    with pytest.raises(UserError, match="taught or chose"):
        main(Tune(**options | {"heads": (out,)}, out=out.parent / "again"))


def test_labels_with_names_of_their_own(runs, corpus, tmp_path, capsys):
    lines = ["video,label", *(f"{id},{name}" for id, name in zip(VALIDATION, ("glad", "sad", "glad"), strict=True))]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "map.json").write_text('{"glad": "Happiness"}')
    options = {"heads": (runs / "expr",), "features": (corpus / "cache",), "labels": tmp_path / "labels.csv"}
    found = main(Tune(**options, class_map=tmp_path / "map.json", out=tmp_path / "tuned", folds=3))
    assert found["expr"]["videos"] == 3 and "class 'glad' is Happiness" in capsys.readouterr().out


def test_faults(tuned):
    options, out, _ = tuned
    with pytest.raises(UserError, match="at least three"):
        main(Tune(**options | {"folds": 2}, out=out.parent / "few"))
    with pytest.raises(UserError, match="4 folds need at least 4 videos, but there are only 3"):
        main(Tune(**options | {"folds": 4}, out=out.parent / "many"))

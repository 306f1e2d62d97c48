from dataclasses import replace

import pytest

from temporal import run
from temporal.recipes import recipe
from tests.figures import figures_left_out
from tests.temporal.corpus import make_corpus

# The demo recipe, smaller still.
TINY = {
    "window": 16,
    "stride": 8,
    "tcn_channels": (8,),
    "width": 8,
    "feedforward": 8,
    "attention_heads": 2,
    "epochs": 60,
    "deviation": False,
}


@pytest.fixture(scope="session")
def corpus(once):
    """See `tests.temporal.corpus.make_corpus`; read only."""
    return once("temporal", make_corpus)


@pytest.fixture(scope="session")
def settings(corpus):
    """Function (task, out, **changes) -> settings of a tiny training on the corpus."""

    def make(task, out, **changes):
        options = {
            "features": (corpus / "cache",),
            "labels": corpus / "release",
            "out": out,
            "tune_on": "hold_out",
            **TINY,
            **changes,
        }
        return replace(recipe("demo", task), **options)

    return make


@pytest.fixture(scope="session")
def runs(settings, once):
    """Finished runs by task: va, expr, au, joint, whose report has the figures of all and is drawn; read only."""

    def make(folder):
        with figures_left_out():
            for task in ("va", "expr", "au"):
                run.main(settings(task, folder / task))
        run.main(settings("joint", folder / "joint"))

    return once("heads", make)

"""The model card that goes with every trained model: data, scores, known failures, what it must not be used for."""

from collections.abc import Sequence
from pathlib import Path

from checkpoints.artifact import atomic_file

FAILURES = (
    "Faces turned away by more than about 60 degrees, covered, tiny (under 40 pixels) or strongly lit from one side: "
    "the detector misses them or the crop tells little.",
    "Rare expressions (fear, disgust) and rare action units (AU15, AU23, AU24): few training frames, many misses.",
    "Neutral faces whose resting shape looks like an expression; make-up, beards, glasses, masks.",
    "Frame rates far from those of the training videos: windows are counted in frames.",
)


def write_card(
    path: Path,
    *,
    name: str,
    what: str,
    data: Sequence[str],
    scores: Sequence[tuple[str, float | None, float | None, str]],
    warnings: Sequence[str] = (),
    failures: Sequence[str] = FAILURES,
) -> None:
    """Fill in the model card template.

    Args:
        path: The Markdown file, usually `MODEL_CARD.md` beside the model.
        name: What the model is called.
        what: A sentence or two: architecture, input, output.
        data: What it was trained on, one line each.
        scores: (task, score, chance, what it was scored on).
        warnings: Shown first, such as that the data are synthetic.
        failures: What it is known to get wrong.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    text = environment.get_template("card.md").render(
        name=name, what=what, data=data, scores=scores, warnings=warnings, failures=failures
    )
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

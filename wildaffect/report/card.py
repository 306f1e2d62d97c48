"""The model card of every trained model: data, scores, known failures, and what it must not be used for."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from checkpoints.artifact import atomic_file, read_json
from checkpoints.encoder import chosen_on
from wildaffect.tasks.leaks import clean_scores, together

CARD = "README.md"
"""The name under which the Hugging Face Hub shows a card."""
KIND_MEANS = {
    "real": "learnt from labels that people gave to real faces",
    "derived": "learnt from values that a published rule computes from people's labels of real faces, not rated by "
    "people: not comparable with Aff-Wild2's valence and arousal",
    "synthetic": "learnt from faces that a computer made, not from people",
}
"""What a head learnt from: see :attr:`temporal.recipes.Temporal.labels_are`."""
SYNTHETIC = (
    "Trained on rendered or drawn faces, not on people (synthetic): the scores say how the software behaves, and "
    "predictions for real people mean nothing. Train on real data for real results."
)
RENDERED = (
    "Trained on rendered faces, not on people (synthetic): predictions for real people are worth only what scores on "
    "real faces say, where this model's card or its bundle's gives any."
)

HARD = (
    "Faces turned away by more than about 60 degrees, covered, tiny (under 40 pixels) or strongly lit from one side: "
    "the detector misses them, or the crop shows too little."
)
LOOKS = "Neutral faces whose resting shape looks like an expression; make-up, beards, glasses, masks."
UNKNOWN = "Not known: how the scores differ by skin tone, age and gender, of which the labels say nothing."
RARE_UNITS = ("AU15", "AU23", "AU24")
PRETRAINED_FAILURES = (
    "It was trained on faces as the detector aligns them; other crops, margins or rotations look different to it.",
    "Its features are less reliable for ages, skin tones, poses and cameras that were rare in its training pictures.",
)
CLEAN = "videos used neither for training nor for selection"
UNSCORED = "no videos kept out of training and selection"
TITLES = {"va": "valence and arousal", "expr": "expression", "au": "action units"}


def failures(tasks: Collection[str], *, withheld: Collection[str] = (), window: int = 1) -> list[str]:
    """Known failures of heads.

    Args:
        tasks: Names of the tasks that they predict.
        withheld: Action units that they do not report.
        window: Frames that they see at once.
    """
    units = [name for name in RARE_UNITS if name not in withheld] if "au" in tasks else []
    rare = ["expressions (fear, disgust)"] if "expr" in tasks else []
    rare += [f"action units ({', '.join(units)})"] if units else []
    return [
        HARD,
        *([f"Rare {' and rare '.join(rare)}: few training faces and many misses."] if rare else []),
        LOOKS,
        "Frame rates far from those of the training videos: the length of a window is a number of frames."
        if window > 1
        else "What only movement tells: every frame is judged by itself, and its values are only smoothed over time.",
        UNKNOWN,
    ]


def labels_are(record: Mapping[str, Any]) -> str:
    """What a head learnt from, by its record: a key of `KIND_MEANS`."""
    return str(record.get("labels_are", "synthetic" if record.get("synthetic") else "real"))


def caution(faces: Iterable[str | None]) -> str:
    """What to know of heads that learnt from synthetic faces alone: `faces` as records say, or None."""
    return RENDERED if all(kind == "rendered" for kind in faces) else SYNTHETIC


def scored_on(videos: int, kind: str, withheld: Sequence[str]) -> str:
    """What a score was measured on.

    Args:
        videos: Their number.
        kind: What their labels are, a key of `KIND_MEANS`.
        withheld: Action units that the score covers and no output has.
    """
    against = "" if kind == "real" else f", against {kind} labels"
    return f"{videos:,} {CLEAN}{against}{', over the withheld action units too' if withheld else ''}"


def write_product_card(directory: Path, data: Sequence[str] = ()) -> None:
    """Write the card of an encoder or a head beside it, from its header; `data` are further lines on its data."""
    header = read_json(directory / "config.json")
    card = {"encoder": _encoder_card, "head": _head_card}[header["kind"]](header)
    write_card(directory / CARD, **card | {"data": [*card["data"], *data]})


def of_synthetic(task: str, origin: Mapping[str, Any]) -> str:
    """Words after the number of a task's labelled videos, if these are synthetic."""
    return " of synthetic faces" if task in origin.get("synthetic_labels", ()) else ""


def _encoder_card(header: Mapping[str, Any]) -> dict[str, Any]:
    encoder, origin = header["encoder"], header["provenance"]
    stage = {"pretrain": "masked autoencoder", "finetune": "fine-tuned on labels"}.get(
        origin.get("stage", ""), "imported"
    )
    data = []
    if videos := origin.get("unlabelled_videos"):
        data.append(f"Faces of {len(videos):,} videos or pictures, without labels.")
    if seen := origin.get("pictures_seen"):
        data.append(f"{seen:,} pictures seen in all passes over the data.")
    data += [
        f"Labels of {len(videos):,} videos or pictures{of_synthetic(task, origin)}: {TITLES.get(task, task)}."
        for task, videos in (origin.get("labelled_videos") or {}).items()
    ]
    data += [
        f"Labels of {len(videos):,} videos or pictures chose which state of it was kept: {TITLES.get(task, task)}."
        for task, videos in chosen_on(origin).items()
    ]
    return {
        "library": "timm",
        "pipeline": "image-feature-extraction",
        "name": f"{encoder['architecture']} at {encoder['image_size']} pixels, {stage}",
        "what": (
            f"An encoder: from an aligned face of {encoder['image_size']} x {encoder['image_size']} pixels to "
            f"features (tokens pooled by {encoder['pooling']}). It makes no predictions itself; heads are trained on "
            "its features."
        ),
        "data": data,
        "scores": [],
        "warnings": [SYNTHETIC] if origin.get("synthetic") else [],
        "failures": [HARD, LOOKS, UNKNOWN] if header.get("scores") else PRETRAINED_FAILURES,
    }


def _head_card(header: Mapping[str, Any]) -> dict[str, Any]:
    record = header["record"]
    encoder_saw = together(header["encoder_trained_on"], header.get("encoder_chosen_on", {}))
    part = clean_scores(record, {*header["trained_on"], *(id for ids in encoder_saw.values() for id in ids)})
    tasks = list(TITLES) if header["task"] == "joint" else [header["task"]]
    kind, withheld = labels_are(record), header.get("withheld", [])
    views = " and ".join(dict.fromkeys("sound" if item.get("sound") else item["view"] for item in header["inputs"]))
    encoder = [
        f"Labels of {len(ids):,} videos taught or chose its encoder: {TITLES.get(task, task)}."
        for task, ids in encoder_saw.items()
    ]
    return {
        "name": f"{' and '.join(TITLES[task] for task in tasks)}, recipe {header['recipe']}",
        "what": (
            f"A temporal head: from the features of a video's frames (view: {views}) to "
            f"{', '.join(TITLES[task] for task in tasks)} for every frame, in windows of "
            f"{header['architecture']['window']} frame(s). It needs the encoder whose features it was trained on, and "
            "refuses others."
        ),
        "data": [
            f"{len(header['trained_on']):,} videos or pictures taught and chose it: {kind} ({KIND_MEANS[kind]}).",
            *encoder,
            *([withheld_line(withheld)] if withheld else []),
        ],
        "scores": [
            (
                task,
                part[task]["score"],
                part[task].get("chance"),
                scored_on(part[task]["videos"], kind, withheld if task == "au" else ()),
            )
            for task in tasks
            if task in part
        ],
        "warnings": [caution([record.get("faces")])] if kind == "synthetic" else [],
        "failures": failures(tasks, withheld=withheld, window=header["architecture"]["window"]),
    }


def withheld_line(names: Sequence[str]) -> str:
    """A line on the action units that a head withholds."""
    return f"Withheld, because the head failed on them or they could not be checked: {', '.join(names)}."


def write_card(
    path: Path,
    *,
    name: str,
    what: str,
    library: str = "wildaffect",
    pipeline: str = "video-classification",
    data: Sequence[str],
    scores: Sequence[tuple[str, float | None, float | None, str]],
    failures: Sequence[str],
    warnings: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> None:
    """Fill in the template of a model card.

    Args:
        path: The Markdown file, usually `CARD` beside the model.
        name: Name of the model.
        what: One or two sentences on architecture, input and output.
        library: What loads the model, in the words of the Hugging Face Hub.
        pipeline: Its task, in the same words.
        data: What it was trained on, one line each.
        scores: Tuples (task, score, chance, data that it was scored on).
        warnings: Shown first, for example that the data are synthetic.
        failures: Known failures.
        remarks: Further scores, one line or Markdown table each.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    text = environment.get_template("card.md").render(
        name=name,
        what=what,
        library=library,
        pipeline=pipeline,
        data=data,
        scores=scores,
        warnings=warnings,
        failures=failures,
        remarks=remarks,
    )
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

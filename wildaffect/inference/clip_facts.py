"""What every output says about itself: which heads made the predictions, and where they should not be trusted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from checkpoints.errors import some
from temporal.data import frame_rate
from wildaffect.inference.models import Models
from wildaffect.inference.table import BOX, flags, matrix, rows_of, subject_name, subjects
from wildaffect.report.card import KIND_MEANS, TITLES, scored_on
from wildaffect.tasks import EXPRESSIONS, TASKS
from wildaffect.tasks.priors import too_brief

UNFRAMED = (
    "It is not known how the faces were framed in training, so they are framed in wildaffect's own way: the numbers "
    "may be worse than the heads' scores."
)
ADAPTED = {
    "person": "Expressions are relative to each person's own baseline, if they are seen long enough: the median over "
    "the clip is treated as neutral.",
    "clip": "Expressions are under a prior that was estimated from this clip for each person who is seen long enough.",
}
NO_CLOCK = "The frames have no times: 30 per second are assumed, in the times shown and where values are smoothed."
MISUSE = (
    "Predictions describe what a face shows as annotators would rate it, not what a person feels, thinks or intends. "
    "They must not be used to judge, select or watch people (hiring, schools, policing, borders, health). They are "
    "less reliable for people, ages, poses and cameras that are rare in the training data."
)
RATES = (7.0, 32.0)  # frames per second of Aff-Wild2's videos: 7.5 to 30


@dataclass(frozen=True)
class Facts:
    """Facts about a clip.

    Attributes:
        frames: Number of decoded frames.
        seconds: Time from the first to the last frame.
        rate: Frames per second (median); 0 for a picture.
        people: Number of subjects with a face.
        with_face: Share of frames with a face.
        with_main_person: Share of frames with a face of the main person.
        interpolated: Share of the faces that were interpolated between detections.
        face_size: Median size of the faces' boxes in pixels; 0 without boxes.
    """

    frames: int
    seconds: float
    rate: float
    people: int
    with_face: float
    with_main_person: float
    interpolated: float
    face_size: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON and tables."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def facts_of(table: pa.Table) -> Facts:
    """Compute the facts of a clip from its table."""
    main = rows_of(table, "")
    time_s = main["time_s"].to_numpy(zero_copy_only=False).astype(float)
    clock = len(time_s) > 1 and np.isfinite(time_s).all()
    face = flags(table, "face")
    box = matrix(table, BOX)[face]
    size = np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])
    size = size[np.isfinite(size)]  # ready crops have no boxes
    return Facts(
        frames=main.num_rows,
        seconds=float(time_s[-1] - time_s[0]) if clock else 0.0,
        rate=frame_rate(time_s) if clock else 0.0,
        people=len(subjects(table)) if face.any() else 0,
        with_face=len(set(table["frame"].to_numpy()[face])) / main.num_rows,
        with_main_person=float(flags(main, "face").mean()),
        interpolated=float(flags(table, "interpolated")[face].mean()) if face.any() else 0.0,
        face_size=float(np.median(size)) if len(size) else 0.0,
    )


def notes_of(models: Models) -> list[str]:
    """What a reader must know about the heads, whatever the clip, the most serious first."""
    found = [models.caution] if models.synthetic else []
    if models.prior != "stated":
        priors = [head.prior for head in models.heads if head.prior]
        idle = [
            name
            for number, name in enumerate(EXPRESSIONS)
            if any(prior.stated[number] and not prior.trained[number] for prior in priors)
        ]
        same = len({prior.stated for prior in priors}) == 1
        shares = dict(zip(EXPRESSIONS, priors[0].stated, strict=True)) if same else {}
        listed = ", ".join(f"{name} {share:.3g}" for name, share in shares.items() if name not in idle)
        without = f" Heads that did not learn {' and '.join(idle)} ignore the share of it." if idle else ""
        found.append(
            f"Expressions are under the prior {models.prior}{f' ({listed})' if listed else ''}, not the stated one, "
            f"for which their score holds.{without}"
        )
    if adapted := ADAPTED.get(models.adapt):
        found.append(f"{adapted} Their score is without this.")
    if not models.framing_is_known:
        found.append(UNFRAMED)
    return found


def left_unadapted(models: Models, table: pa.Table) -> list[str]:
    """A sentence on whom expressions are not adapted to, if they should be."""
    brief = []
    for subject in subjects(table) if models.adapt != "none" else ():
        rows = rows_of(table, subject)
        seen = int(flags(rows, "face").sum())
        rate = frame_rate(rows["time_s"].to_numpy(zero_copy_only=False).astype(float))
        if seen and too_brief(seen, rate):
            brief.append(subject_name(subject))
    reason = "Expressions are not adapted to people seen for less than a second or in fewer than ten frames"
    return [f"{reason}: {some(brief, 5)}."] if brief else []


def warnings_of(models: Models, facts: Facts, problems: list[str], notes: Sequence[str] = ()) -> list[str]:
    """What a reader must know before trusting the numbers, the most serious first; `notes` are on the sound."""
    found = notes_of(models)
    wanted = models.image_size
    window = max(head.architecture.window for head in models.heads)
    if not facts.people:
        found.append("No face was found: the table has a row for every frame and no predictions.")
    elif facts.with_main_person < 0.8:
        gaps = " The heads were trained on videos with a face in nearly every frame, and fill gaps by repeating the "
        gaps = f"{gaps}nearest face." if window > 1 else ""
        found.append(f"The main person's face is in only {facts.with_main_person:.0%} of the frames.{gaps}")
    if facts.interpolated > 0.2:
        found.append(f"{facts.interpolated:.0%} of the faces were not detected but interpolated between detections.")
    if 0 < facts.face_size < wanted * 0.5:
        found.append(
            f"Faces are small: {facts.face_size:.0f} pixels (median), enlarged to the encoder's {wanted} pixels."
        )
    if window > 1 and facts.rate and not RATES[0] <= facts.rate <= RATES[1]:
        found.append(
            f"The clip has {facts.rate:.1f} frames per second, outside the {RATES[0]:.0f} to {RATES[1]:.0f} of the "
            f"training videos: a window of {window} frames covers a different length of time than in training."
        )
    if facts.frames > 1 and not facts.rate:
        found.append(NO_CLOCK)
    if window > 1 and facts.frames == 1:
        found.append("This is a single picture: the temporal heads see one frame, repeated.")
    return [*found, *notes] + [f"The file is damaged or unusual: {problem}" for problem in problems]


def kinds_of(models: Models) -> str:
    """What each task's heads learnt from, in a few words: `VA derived, Expr real`."""
    return ", ".join(f"{TASKS[task].short} {kind}" for task, kind in models.kinds.items())


def describe_kinds(models: Models) -> list[str]:
    """One sentence for each task on what its heads learnt from."""
    return [f"{TASKS[task].title}: {kind} ({KIND_MEANS[kind]})." for task, kind in models.kinds.items()]


def describe_models(models: Models) -> list[list[Any]]:
    """One row per head and task, with the columns `MODEL_COLUMNS`."""
    rows = []
    for source in models.sources:
        encoders = "; ".join(
            ", ".join(
                [
                    str(part.get("stage", "encoder of unknown training")),
                    *(
                        f"{n:,} {'synthetic ' if key in part.get('synthetic_labels', []) else ''}videos labelled with "
                        f"{TITLES.get(key, key)}"
                        for key, n in part["labelled_videos"].items()
                    ),
                    *(f"epoch chosen on {n:,} {TITLES.get(key, key)} videos" for key, n in part["chosen_on"].items()),
                ]
            )
            for part in source["encoders"]
        )
        faces = f" ({source['faces']})" if "faces" in source else ""
        synthetic = f" of synthetic faces{faces}" if source["labels_are"] == "synthetic" else ""
        videos = f"{source['trained_on_videos']:,} videos or pictures{synthetic}"
        for task in source["tasks"]:
            score = source["scores"].get(task, {})
            withheld = source.get("withheld", []) if task == "au" else []
            on = scored_on(score["videos"], source["labels_are"], withheld) if score else source["scored_on"]
            if score and task == "expr" and (models.prior, models.adapt) != ("stated", "none"):
                on += ", under the stated prior and not adapted"
            numbers = [score.get("score"), score.get("chance"), on]
            rows.append([source["name"], task, source["recipe"], f"{videos}; encoder: {encoders}", *numbers])
    return rows


def credit(models: Models) -> str:
    """One line for outputs without a table: each head, what it was trained on, and its score."""
    parts = []
    for head, task, recipe, data, score, chance, on in describe_models(models):
        number = f"scored on {on}" if score is None else f"score {score:.3f} (chance {chance or 0:.3f}) on {on}"
        parts.append(f"{task}: head {head}, recipe {recipe}, trained on {data}; {number}")
    return ". ".join(parts)


MODEL_COLUMNS = ("head", "task", "recipe", "trained on", "score", "chance", "scored on")

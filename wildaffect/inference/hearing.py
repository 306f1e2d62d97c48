"""The sound of a clip, as heads hear it: made as for the caches that they were trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from features.cache import fill_nearest
from features.sound import Ear, hear_video
from preprocessing.faces import FacesStore
from preprocessing.faces import Sequence as FaceSequence
from preprocessing.sound import SILENT


@dataclass
class Heard:
    """The sound of a clip.

    Attributes:
        features: Id of each sequence, and feature id, to `[T, D]` float16; gaps are filled with the nearest frame.
        valid: The same to `[T]` bool, frames with sound.
        notes: What a reader should know, one sentence each.
    """

    features: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    valid: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def hear_clip(
    ears: Mapping[str, Ear], store: FacesStore, sequences: Sequence[FaceSequence], source: Path | None
) -> Heard:
    """Hear one video.

    Args:
        ears: Feature id to what makes the features.
        store: The faces.
        sequences: Those of the video.
        source: The video; None if there is none, and so no sound.
    """
    heard = Heard({s.id: {} for s in sequences}, {s.id: {} for s in sequences})
    problems: list[str] = []
    for name, ear in ears.items():
        for id, (features, valid) in hear_video(ear, source, store, sequences, problems.append).items():
            heard.features[id][name] = fill_nearest(features, valid, np.arange(len(valid)))
            heard.valid[id][name] = valid
    if ears:
        share = np.mean(np.concatenate([next(iter(flags.values())) for flags in heard.valid.values()]))
        if not share:
            heard.notes.append("There is no sound: heads trained with sound predict from the faces alone.")
        elif share < 0.8:
            heard.notes.append(f"There is sound for only {share:.0%} of the frames; elsewhere the faces alone count.")
        heard.notes += [f"The file {problem}." for problem in dict.fromkeys(problems) if problem != SILENT]
    return heard

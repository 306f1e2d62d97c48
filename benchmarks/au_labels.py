"""Hand labels of action units: who coded what, how far the passes agree, and the codes that count.

A label file has one row per face and pass: `id, source, file, frame, person, split, pass` and one column per action
unit, which holds 1 (clearly visible), 0, or nothing (cannot be judged). `source/file` is the picture in the data
folder; `frame`, counted from 1, is given for clips.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.metrics import cohen_kappa_score

from benchmarks.peers import Faces
from checkpoints.errors import UserError
from preprocessing.video import read_frames
from wildaffect.tasks import AUS
from wildaffect.tasks.tables import read_table

COLUMNS = ("id", "source", "file", "frame", "person", "split", "pass", *AUS)


@dataclass(frozen=True)
class HandLabels:
    """Codes of `N` faces in `P` passes.

    Attributes:
        places: The picture of each face, as `source/file`.
        frames: The frame of a clip, from 1; 0 for a picture.
        people: Whose face it is `[N]`.
        splits: The part of its data set that a face is in `[N]`.
        passes: What each pass coded, `[P, N, 12]`: 0, 1, or NaN for what could not be judged.
    """

    places: list[str]
    frames: list[int]
    people: np.ndarray
    splits: np.ndarray
    passes: np.ndarray

    def agreed(self) -> np.ndarray:
        """The codes that count `[N, 12]`: what all passes say; NaN where they differ or one could not judge."""
        first = self.passes[0]
        return np.where((self.passes == first).all(0), first, np.nan)

    def agreement(self) -> dict[str, dict[str, Any]]:
        """Cohen's kappa of the first two passes by action unit, over the faces that both could judge.

        With it: those faces, how many each pass calls present, and on how many both do. Kappa is None if it is
        undefined, because both passes gave one and the same code to all faces.
        """
        result = {}
        for number, name in enumerate(AUS):
            codes = self.passes[:2, :, number]
            first, second = codes[:, ~np.isnan(codes).any(0)].astype(int)
            constant = len({*first, *second}) < 2
            result[name] = {
                "judged": len(first),
                "present": [int(first.sum()), int(second.sum())],
                "present_in_both": int((first & second).sum()),
                "kappa": None if constant else float(cohen_kappa_score(first, second)),
            }
        return result

    def faces(self, folder: Path) -> Faces:
        """The labelled pictures, from the data folder; their classes are not known (all -1).

        Raises:
            UserError: A picture or a frame is not there.
        """
        wanted: dict[str, set[int]] = {}
        for place, frame in zip(self.places, self.frames, strict=True):
            if not (folder / place).is_file():
                raise UserError(f"{folder} has no {place}, which the hand labels name")
            wanted.setdefault(place, set()).add(frame)
        content: dict[tuple[str, int], bytes] = {}
        for place, frames in wanted.items():
            if frames == {0}:
                content[place, 0] = (folder / place).read_bytes()
                continue
            for read in read_frames(folder / place, print):
                if read.index in frames and read.image is not None:
                    picture = cv2.cvtColor(read.image, cv2.COLOR_RGB2BGR)
                    content[place, read.index] = cv2.imencode(".png", picture)[1].tobytes()
        keys = list(zip(self.places, self.frames, strict=True))
        if missing := [key for key in keys if key not in content]:
            raise UserError(f"{folder / missing[0][0]} has no frame {missing[0][1]}, which the hand labels name")
        return Faces("hand labels", [content[key] for key in keys], np.full(len(keys), -1))


def read_hand_labels(path: Path) -> HandLabels:
    """Read a label file.

    Raises:
        UserError: It lacks a column, a code is neither 0, 1 nor empty, or there are not two
            passes that each have every face just once.
    """
    table = read_table(path)
    if missing := [name for name in COLUMNS if name not in table]:
        raise UserError(f"{path} has no column {missing[0]}: expected {', '.join(COLUMNS)}")
    codes = np.stack([table.numbers(name) for name in AUS], 1)
    if (bad := np.argwhere(~np.isnan(codes) & ~np.isin(codes, (0, 1)))).size:
        row, column = bad[0].tolist()
        raise table.error(row, AUS[column], f"expected 0, 1 or nothing, found {codes[row, column]:g}")
    ids, passes = table.texts("id"), table.texts("pass")
    rows = {key: row for row, key in enumerate(zip(passes, ids, strict=True))}
    names, faces = sorted(set(passes)), list(dict.fromkeys(ids))
    if len(names) < 2:
        raise UserError(
            f"{path}: column pass: {len(names)} pass; code every face in two or more, or none can be trusted"
        )
    for name in names:
        if (lacking := [id for id in faces if (name, id) not in rows]) or len(rows) < len(ids):
            what = f"pass {name} lacks {lacking[0]}" if lacking else "a pass has a face twice"
            raise UserError(f"{path}: {what}: give every face one row in each pass")
    first = [rows[names[0], id] for id in faces]
    sources, files, people, splits = (
        [table.texts(name)[row] for row in first] for name in ("source", "file", "person", "split")
    )
    frames = np.nan_to_num(table.numbers("frame")).astype(int)[first].tolist()
    return HandLabels(
        [f"{source}/{file}" for source, file in zip(sources, files, strict=True)],
        frames,
        np.array(people),
        np.array(splits),
        np.stack([codes[[rows[name, id] for id in faces]] for name in names]),
    )

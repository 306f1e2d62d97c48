"""Challenge files: writing, reading and checking what teams submit to ABAW.

One text file for all videos, in the order of the official example file::

    image_location,valence,arousal              2-30-640x360/00001.jpg,0.5,-0.5
    image_location,Neutral,...,Other            14-30-1920x1080/00001.jpg,0
    image_location,AU1,...,AU26                 2-30-640x360/00001.jpg,1,0,...
    image,valence,arousal,expression,aus        video45_1/00001.jpg,v,a,e,au1..au12
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from checkpoints.artifact import atomic_file
from checkpoints.errors import UserError
from checkpoints.reading import Refuse, first_line, in_lines, parse_rows, read_lines, read_text, shown
from wildaffect.tasks.labels import MTL_HEADER, parse_locations
from wildaffect.tasks.task import TASKS

# Lines after the header in the files of the 6th ABAW, and the width of a line's labels.
PUBLISHED_LINES = {"va": 927_210, "expr": 1_022_655, "au": 729_736}
FORMS = ("va", "expr", "au", "mtl")


def parts(form: str) -> tuple[str, ...]:
    """Tasks whose labels stand in a line, in order."""
    return ("va", "expr", "au") if form == "mtl" else (form,)


def header(form: str) -> str:
    """First line of a challenge file."""
    return MTL_HEADER if form == "mtl" else f"image_location,{TASKS[form].header}"


def width(form: str) -> int:
    """Numbers per line after the image location."""
    return sum(TASKS[name].label_width for name in parts(form))


@dataclass(frozen=True)
class Example:
    """The frames an example file lists.

    Attributes:
        locations: `[N]` image locations as written there.
        ids: ids in order of first appearance.
        rows: id -> rows of `locations`.
        frames: id -> frame numbers, in the same order.
    """

    locations: list[str]
    ids: list[str]
    rows: dict[str, np.ndarray]
    frames: dict[str, np.ndarray]

    def last_frame(self, id: str) -> int:
        """Largest frame number listed for a video, which is how long its predictions must be."""
        return int(self.frames[id].max())


def form_of(path: Path) -> str:
    """The challenge that a file's header belongs to: `va`, `expr`, `au` or `mtl`.

    Raises:
        UserError: The first line is none of their headers, or the file cannot be read.
    """
    first = first_line(path)
    for form in FORMS:
        if first == header(form):
            return form
    read_text(path)  # says so if the file is missing, or not a text
    raise UserError(
        f"{path}, line 1: {shown(first)} is not a challenge file's header; expected one of "
        + "; ".join(f"'{header(form)}'" for form in FORMS)
    )


def is_challenge_file(path: Path) -> bool:
    """Whether a file's first line begins as a challenge file's does, whatever the file is called."""
    return first_line(path).split(",")[0].strip().lower() in ("image_location", "image")


def read_example(path: Path) -> Example:
    """The frames listed in an example file; everything after the first comma is ignored.

    Raises:
        UserError: A line is not an image location, or a frame is listed twice.
    """
    return _index(_listed(path), in_lines(path))


def _listed(path: Path) -> list[str]:
    """First cells of an example file under its header, as they are."""
    lines = read_lines(path)
    if not lines or not lines[0].lower().startswith("image"):
        found = shown("".join(lines[:1]))
        raise in_lines(path)(-1, "", f"expected a header that begins with 'image', found {found}")
    return [line.split(",", 1)[0].strip() for line in lines[1:]]


def _index(locations: list[str], refuse: Refuse) -> Example:
    parsed = parse_locations(locations, refuse)
    if (again := parsed.repeated()) is not None:
        raise refuse(again, "", f"{locations[again]} is listed twice")
    by_id = np.argsort(parsed.codes, kind="stable")
    bounds = np.searchsorted(parsed.codes[by_id], np.arange(1, len(parsed.ids)))
    rows = dict(zip(parsed.ids, np.split(by_id, bounds), strict=True)) if parsed.ids else {}
    return Example(locations, parsed.ids, rows, {id: parsed.frames[mine] for id, mine in rows.items()})


def write_challenge_file(
    path: Path, form: str, example: Example, decoded: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Write a challenge file, atomically.

    Args:
        path: the text file.
        form: `va`, `expr`, `au` or `mtl`.
        example: frames and their order.
        decoded: task name -> id -> `[T, label_width]` for the frames 1 .. T.

    Raises:
        UserError: A listed frame has no finite prediction.
    """
    texts: list[str] = [""] * len(example.locations)
    for id in example.ids:
        columns = []
        for name in parts(form):
            track = decoded[name].get(id)
            if track is None or len(track) < example.last_frame(id):
                raise UserError(
                    f"no {name} prediction for frame {example.last_frame(id)} of {id}, which the example lists"
                )
            listed = track[example.frames[id] - 1]
            if not np.isfinite(listed).all():
                frame = example.frames[id][np.flatnonzero(~np.isfinite(listed).all(axis=1))[0]]
                raise UserError(f"the {name} prediction for frame {frame} of {id} is not finite")
            columns.append([TASKS[name].format_row(row) for row in listed])
        for row, values in zip(example.rows[id], zip(*columns, strict=True), strict=True):
            texts[row] = f"{example.locations[row]},{','.join(values)}"
    with atomic_file(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(header(form) + "\n")
        file.writelines(text + "\n" for text in texts)


@dataclass(frozen=True)
class ChallengeFile:
    """A challenge file's content.

    Attributes:
        index: which frames it predicts.
        values: task name -> `[N, label_width]`.
    """

    index: Example
    values: dict[str, np.ndarray]


def read_challenge_file(path: Path, form: str) -> ChallengeFile:
    """Read a challenge file, whoever wrote it.

    Raises:
        UserError: Names the first malformed line: header, quotes, image location, number of values, a value that is not
            a prediction (out of range, or a marker), a frame listed twice.
    """
    path = Path(path)
    lines, refuse = read_lines(path), in_lines(path)
    if not lines or lines[0] != header(form):
        raise refuse(-1, "", f"expected the header '{header(form)}', found {shown(''.join(lines[:1]))}")
    rows = lines[1:]
    cuts = [line.find(",") for line in rows]  # no lists of cells: a million of them keep Python's collector busy
    bad = cuts.index(-1) if -1 in cuts else next((row for row, line in enumerate(rows) if '"' in line), None)
    if bad is not None:
        wanted = f"{width(form)} value(s), comma-separated and without quotes"
        raise refuse(bad, "", f"expected an image location and {wanted}, found {shown(rows[bad])}")
    locations = [line[:cut] for line, cut in zip(rows, cuts, strict=True)]
    columns = [name for part in parts(form) for name in TASKS[part].label_columns]
    numbers = parse_rows([line[cut + 1 :] for line, cut in zip(rows, cuts, strict=True)], columns, refuse)
    values: dict[str, np.ndarray] = {}
    start = 0
    for name in parts(form):
        task = TASKS[name]
        values[name] = numbers[:, start : start + task.label_width]
        start += task.label_width
        bad = task.bad_values(values[name]) | (values[name] == task.marker)
        if bad.any():
            row, column = (int(index[0]) for index in np.nonzero(bad))
            found = f"{values[name][row, column]:.10g} is not a valid {name} prediction"
            raise refuse(row, task.label_columns[column], found)
        values[name] = values[name].astype(np.float32)
    return ChallengeFile(_index(locations, refuse), values)


def check_challenge_file(path: Path, form: str, example_path: Path) -> int:
    """Check a challenge file against the example file: the same frames in the same order, each with a value.

    Returns:
        The number of frames.

    Raises:
        UserError: Names the first wrong line.
    """
    found = read_challenge_file(path, form).index.locations
    if found == _listed(example_path):  # quick: what was found has been parsed already
        return len(found)
    expected = read_example(example_path).locations
    for row, (location, wanted) in enumerate(zip(found, expected, strict=False)):
        if location != wanted:
            raise UserError(f"{path}, line {row + 2}: expected {wanted} (as in {example_path}), found {location}")
    if len(found) != len(expected):
        line = min(len(found), len(expected)) + 2
        what = (
            "the file ends, but the example goes on with"
            if len(found) < len(expected)
            else "the example has no line for"
        )
        name = expected[len(found)] if len(found) < len(expected) else found[len(expected)]
        raise UserError(
            f"{path}, line {line}: {what} {name} ({len(found):,} frames here, {len(expected):,} in the example)"
        )
    return len(found)

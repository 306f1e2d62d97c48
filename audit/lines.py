"""Reads annotations for the audit. A malformed line stops it, or is listed and skipped."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from checkpoints.errors import UserError
from checkpoints.reading import in_lines, parse_rows, read_lines, shown
from wildaffect.tasks.labels import (
    MTL_COLUMNS,
    MTL_HEADER,
    MTL_NAMES,
    Tracks,
    parse_locations,
    read_annotation_file,
    read_mtl,
)
from wildaffect.tasks.task import TASKS, Task


def read_labels(path: Path, task: Task, bad_lines: list[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Labels and mask of a file. If `bad_lines` is given, malformed lines go there and count as not annotated."""
    try:
        track = read_annotation_file(path, task)
        return track.labels, track.mask
    except UserError:
        if bad_lines is None:
            raise
    lines = read_lines(path)
    labels = np.full((max(len(lines) - 1, 0), task.label_width), task.marker, np.float32)
    if not lines or lines[0].replace(" ", "") != task.header:
        bad_lines.append(f"{path.name}, line 1: {shown(''.join(lines[:1]))} is not the header")
    for number, line in enumerate(lines[1:]):
        try:
            row = parse_rows([line], task.label_columns, in_lines(path, number + 2))
            if task.bad_values(row).any():
                raise UserError("")
            labels[number] = row[0]
        except UserError:
            bad_lines.append(f"{path.name}, line {number + 2}: {shown(line)}")
    return labels, task.mask(labels)


def read_mtl_labels(path: Path, bad_lines: list[str] | None) -> dict[str, Tracks]:
    """Tracks per task of an MTL file. If `bad_lines` is given, malformed lines go there and are skipped."""
    try:
        return {task.name: read_mtl(path, task) for task in TASKS.values()}
    except UserError:
        if bad_lines is None:
            raise
    lines = read_lines(path)
    if not lines or lines[0].replace(" ", "") != MTL_HEADER:
        bad_lines.append(f"{path.name}, line 1: {shown(''.join(lines[:1]))} is not the header")
    kept: dict[tuple[str, int], str] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            kept[_checked(line, path, number, kept)] = line
        except UserError:
            bad_lines.append(f"{path.name}, line {number}: {shown(line)}")
    with TemporaryDirectory() as folder:  # the good lines are read like any other file
        copy = Path(folder) / path.name
        copy.write_text("\n".join([MTL_HEADER, *kept.values()]) + "\n", encoding="utf-8")
        return {task.name: read_mtl(copy, task) for task in TASKS.values()}


def _checked(line: str, path: Path, number: int, known: dict[tuple[str, int], str]) -> tuple[str, int]:
    """Video and frame of a line of an MTL file.

    Raises:
        UserError: The line is malformed, or the frame has already been read.
    """
    location, _, rest = line.partition(",")
    refuse = in_lines(path, number)
    row = parse_rows([rest], MTL_NAMES, refuse)
    parsed = parse_locations([location], refuse)
    key = parsed.ids[0], int(parsed.frames[0])
    if key in known or any(task.bad_values(row[:, MTL_COLUMNS[task.name]]).any() for task in TASKS.values()):
        raise UserError("")
    return key

"""What preprocessing reads: an item is one video, folder of frames, picture or table; a group of items is one shard."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# fmt: off
VIDEO_SUFFIXES = {
    ".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp",
    ".ogv", ".vob", ".asf",
}
TABLE_SUFFIXES = {".parquet", ".arrow"}
# fmt: on

TABLE_ROWS = 2048
"""Rows of a table in one item."""
FRAME_BYTES = 4096
"""Assumed size of one frame in a folder of frames."""


@dataclass(frozen=True, slots=True)
class Label:
    """The label of one picture; None for what is not annotated.

    Attributes:
        split: `train` or `validation`.
        expression: Index into `wildaffect.tasks.EXPRESSIONS`.
        valence, arousal: -1..1.
    """

    split: str | None = None
    expression: int | None = None
    valence: float | None = None
    arousal: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to read.

    Attributes:
        video: Id in the store.
        path: The file, or the folder of frames.
        name: The path relative to the source's parent folder, to show to people and to tell items apart.
        kind: A video, a folder of numbered frames, a picture, or rows of a table.
        size: Bytes of the file; for a folder, `FRAME_BYTES` per frame. Shows that a file has changed, and how much
            work it is.
        subjects: Subjects that the data set names; if empty, everybody is kept.
        length: Last frame that the data set lists for the video, if it does: a video that cannot be read has that many
            rows without a face.
        clock: For a folder of frames, the video they come from, which has their length and time stamps.
        rows: First row and end of a part of a table.
        box: The labelled face of a picture (x1, y1, x2, y2). Other faces are then dropped.
        label: The label, if the data set has one.
        data: Content of a picture stored in a table.
        frames: The frames themselves (:class:`preprocessing.video.Frame`), which are then read instead of a file.
    """

    video: str
    path: Path
    name: str
    kind: Literal["video", "frames", "picture", "table"]
    size: int = 0
    subjects: tuple[str, ...] = ()
    length: int = 0
    clock: Path | None = None
    rows: tuple[int, int] = (0, 0)
    box: tuple[float, ...] = ()
    label: Label | None = None
    data: bytes | None = None
    frames: Iterable[Any] | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The items of one shard.

    Attributes:
        name: Name of the shard.
        items: In order.
        digest: A hash that changes when anything about the items does.
    """

    name: str
    items: tuple[Item, ...]
    digest: str

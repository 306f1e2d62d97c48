"""What preprocessing reads: an item is one video, folder of frames, picture or table; a group of items is one shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# fmt: off
VIDEO_SUFFIXES = {
    ".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp",
    ".ogv", ".vob", ".asf",
}
TABLE_SUFFIXES = {".parquet", ".arrow"}
# fmt: on

TABLE_ROWS = 2048
"""Rows of a table that make one item."""
FRAME_BYTES = 4096
"""Assumed size of one frame in a folder of frames."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a data set of pictures says about one; None where it says nothing.

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
        name: The path from the source's name on, for people and for telling items apart; no absolute path.
        kind: A video, a folder of numbered frames, a picture, or rows of a table.
        size: Bytes of the file (of a folder `FRAME_BYTES` a frame): tells a changed file, and how much work it is.
        subjects: Subjects that a data set names; empty: everybody.
        clock: For a folder of frames, the video whose length and time stamps they have.
        rows: First row and end of a part of a table.
        box: Where the labelled face of a picture is (x1, y1, x2, y2); nobody else is kept then.
        label: Its label, if the data set has one.
        data: Content of a picture that stands in a table.
    """

    video: str
    path: Path
    name: str
    kind: Literal["video", "frames", "picture", "table"]
    size: int = 0
    subjects: tuple[str, ...] = ()
    clock: Path | None = None
    rows: tuple[int, int] = (0, 0)
    box: tuple[float, ...] = ()
    label: Label | None = None
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The items of one shard.

    Attributes:
        name: Name of the shard.
        items: In order.
        digest: Changes when anything about the items does.
    """

    name: str
    items: tuple[Item, ...]
    digest: str

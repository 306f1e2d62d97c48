"""What an audit finds, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from audit.leakage import Leak


@dataclass
class Split:
    """One task's split.

    Attributes:
        files: Number of label files (or names in the test list).
        recordings: Different recordings among them (subjects and parts of one count once).
        lines: Their lines.
        annotated: Lines with an annotation.
        elements: Annotated numbers per column.
        counts: Annotated frames per value (expressions), or positive frames (AUs).
        checksum: Of the label files: tells editions of the annotations apart.
        without_video: Ids whose video is missing.
        without_crop: Annotated (in the test split: listed) frames without a crop.
        beyond: Annotated frames after the video's last.
        difference: Lines minus frames of the video -> number of files.
        published: Published (files, frames), for comparison.
    """

    files: int
    recordings: int = 0
    lines: int = 0
    annotated: int = 0
    elements: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    checksum: str = ""
    without_video: list[str] = field(default_factory=list)
    without_crop: int | None = None
    beyond: int | None = None
    difference: dict[str, int] = field(default_factory=dict)
    published: tuple[int, int] = (0, 0)


@dataclass
class Audit:
    """Everything the audit found.

    Attributes:
        videos: Files; `frames`: their decoded frames, by id.
        crops: Pictures by folder and id.
        crops_beyond: Pictures numbered after the last frame of their video, by folder and id.
        splits: By "task split".
        difference: Lines minus frames, by "task split" and id, where they differ.
        leaks: Pairs of splits that share recordings or people.
        bad_lines: Malformed lines that were left out.
        problems: Everything else that does not fit together.
        synthetic: It is a SynthWild corpus.
    """

    videos: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    crops: dict[str, dict[str, int]] = field(default_factory=dict)
    crops_beyond: dict[str, dict[str, int]] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    difference: dict[str, dict[str, int]] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)
    bad_lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    synthetic: bool = False

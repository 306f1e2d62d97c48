"""What an audit finds, as data."""

from dataclasses import dataclass, field

from audit.leakage import Leak


@dataclass
class Split:
    """One task's split.

    Attributes:
        files: Number of label files (or names in the test list).
        recordings: Number of different recordings; the subjects and parts of one recording count once.
        lines: Number of lines in the files.
        annotated: Number of lines with an annotation.
        elements: Annotated numbers per column.
        counts: Annotated frames per expression, or positive frames per AU.
        checksum: Checksum of the label files, which tells editions of the annotations apart.
        without_video: Ids whose video is missing.
        without_crop: Annotated frames without a crop (in the test split, listed frames).
        beyond: Annotated frames after the last frame of the video.
        difference: Number of files by lines minus frames.
        published: Published (files, frames), for comparison.
    """

    files: int = 0
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
        videos: Number of video files.
        frames: Number of decoded frames, by id.
        crops: Number of crops, by folder and id.
        crops_beyond: Number of crops after the last frame of their video, by folder and id.
        splits: The splits, by "task split".
        difference: Lines minus frames, by "task split" and id, where they differ.
        never_found: Listed subjects without a face in any frame of the faces store, or without any crop.
        leaks: What each pair of splits shares.
        bad_lines: Malformed lines that were skipped.
        problems: Everything else that does not fit together.
        synthetic: Whether it is a SynthWild corpus.
    """

    videos: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    crops: dict[str, dict[str, int]] = field(default_factory=dict)
    crops_beyond: dict[str, dict[str, int]] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    difference: dict[str, dict[str, int]] = field(default_factory=dict)
    never_found: list[str] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    bad_lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    synthetic: bool = False

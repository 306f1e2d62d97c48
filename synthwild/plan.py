"""Plans the synthetic videos before a frame is drawn: names, people, splits, lengths and deliberate irregularities."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

TRAIN, VALIDATION, TEST = "Train_Set", "Validation_Set", "Test_Set"
TASK_NAMES = ("va", "expr", "au")
RATES = (30.0, 29.97, 25.0, 7.5, 24.0, 30.0, 15.0, 30.0, 23.976, 12.5, 29.97, 10.0)
#: Label lines minus frames, in roughly the same proportions as in the release (+1 in two thirds of the files).
LINE_OFFSETS = (1, 0, 1, 2, 1, -1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1)


@dataclass(frozen=True)
class Size:
    """How large a corpus is: videos and frames per video in each split, and the unlabelled pool."""

    code: int  # part of every random seed, so that corpora of two sizes have no person in common
    videos: dict[str, int]
    frames: dict[str, int]
    unlabelled: int
    unlabelled_frames: int
    dwell: float
    height: int = 160


SIZES = {
    "tiny": Size(1, {TRAIN: 7, VALIDATION: 3, TEST: 4}, {TRAIN: 48, VALIDATION: 60, TEST: 60}, 4, 8, 9.0, 128),
    "small": Size(2, {TRAIN: 56, VALIDATION: 18, TEST: 20}, {TRAIN: 52, VALIDATION: 64, TEST: 64}, 230, 11, 18.0),
    "medium": Size(3, {TRAIN: 110, VALIDATION: 36, TEST: 44}, {TRAIN: 150, VALIDATION: 150, TEST: 150}, 900, 11, 22.0),
    "pool": Size(4, {}, {}, 3000, 8, 5.0),
}


@dataclass(frozen=True)
class Subject:
    """One person in a video: suffix of the label file ('' for the main subject), identity, and split by task."""

    suffix: str
    identity: tuple[int, ...]
    splits: dict[str, str]
    visits: tuple[int, ...]


@dataclass(frozen=True)
class Video:
    """One video file before it is drawn; ``seed`` starts its random numbers."""

    name: str
    extension: str
    folder: str
    subjects: tuple[Subject, ...]
    frames: int
    lines: int
    rate: float
    variable_rate: bool
    size: tuple[int, int]
    away: tuple[int, int] | None
    dwell: float
    seed: tuple[int, ...] = ()

    def ids(self) -> list[str]:
        """Names of the label files."""
        return [self.name + subject.suffix for subject in self.subjects]


def visit_order(rng: np.random.Generator) -> Iterator[int]:
    """Expression classes in shuffled rounds, so that every split has all of them; 0 and 4 come twice per round."""
    while True:
        yield from (int(k) for k in rng.permutation([0, 0, 1, 2, 3, 4, 4, 5, 6, 7]))


def video_name(index: int, kind: int) -> str:
    """A name in one of the release's styles. The number in the middle is a nominal frame rate, not the true one."""
    return (
        f"{index}-30-1280x720",
        f"{index}",
        f"video{index}",
        f"{index}-24-1920x1080",
        f"{index}-60-1920x1080-{index % 3 + 1}",
        f"video{index}_{index % 2 + 1}",
    )[kind % 6]


def plan_pool(size: Size, seed: int) -> list[Video]:
    """The unlabelled videos for stage 1, each of a person who appears nowhere else."""
    videos = []
    for index in range(size.unlabelled):
        stream = (seed, size.code, 9, index)
        rng = np.random.default_rng([*stream, 7])
        visits = tuple(int(k) for k in rng.permutation(8)[:5])
        subject = Subject("", stream, {}, visits)
        name, frames, rate = f"u{index:05d}", size.unlabelled_frames, RATES[index % len(RATES)]
        shape = (size.height, size.height)
        videos.append(
            Video(name, ".mp4", "unlabelled", (subject,), frames, frames, rate, False, shape, None, 5.0, stream)
        )
    return videos


def subject_suffixes(index: int) -> tuple[str, ...]:
    """The subjects of a split's ``index``-th video: some have two, of whom one may be the main one, without suffix."""
    if index % 11 == 0:
        return ("_left", "_right")
    if index == 1 or index % 23 == 13:
        return ("", "_right")
    return ("",)


def plan_split(size: Size, seed: int, split: str, first_number: int) -> list[Video]:
    """The labelled videos of one split. All tasks share the split, and most videos have labels for all three."""
    part = (TRAIN, VALIDATION, TEST).index(split)
    rng = np.random.default_rng([seed, size.code, part, 1_000_003])
    visits = visit_order(rng)
    videos = []
    for index in range(size.videos[split]):
        stream = (seed, size.code, part, index)
        suffixes = subject_suffixes(index)
        if split != TRAIN and index == 1:
            suffixes = ("",)
        frames = max(int(size.frames[split] * rng.uniform(0.8, 1.2)), 8)
        if index == 3 or index % 17 == 16:
            frames = int(rng.integers(10, 17))  # shorter than any window
        lines = frames + LINE_OFFSETS[(index + 3 * part) % len(LINE_OFFSETS)]
        tasks = [task for k, task in enumerate(TASK_NAMES) if index % 5 != 4 or (index // 5) % 3 != k]
        count = max(2, round(max(frames, lines) / (1.1 * size.dwell + 2)))  # a visit's mean length, see `walk`
        subjects = tuple(
            Subject(s, (*stream, k), dict.fromkeys(tasks, split), tuple(next(visits) for _ in range(count)))
            for k, s in enumerate(suffixes)
        )
        away = None
        if index == 2 or index % 9 == 8:
            start = frames // 3 + int(rng.integers(0, 5))
            away = (start, start + min(int(rng.integers(7, 13)), frames // 4))
        variable = index == 1 or index % 7 == 6
        avi = not variable and index % 4 == 2
        height = size.height
        single = (height, height) if index % 3 else (height * 5 // 4 // 2 * 2, height)
        videos.append(
            Video(
                name=video_name(first_number + index, index + part),
                extension=".avi" if avi else ".mp4",
                folder=f"release/videos/batch{index % 2 + 1}",
                subjects=subjects,
                frames=frames,
                lines=lines,
                rate=RATES[(index + part) % len(RATES)],
                variable_rate=variable,
                size=(height * 8 // 5 // 2 * 2, height) if len(suffixes) == 2 else single,
                away=away,
                dwell=size.dwell,
                seed=stream,
            )
        )
    return videos


def leak(videos: list[Video]) -> list[Video]:
    """Reproduce the release's overlaps between the tasks' splits.

    Every third VA validation video becomes an Expr training video, and every third VA training video an Expr validation
    video. In a video with two subjects, the second one moves to the other Expr split.
    """

    def moved(subject: Subject, split: str) -> Subject:
        return replace(subject, splits=subject.splits | {"expr": split}) if "expr" in subject.splits else subject

    out = []
    swap = {TRAIN: VALIDATION, VALIDATION: TRAIN}
    for index, video in enumerate(videos):
        home = next(iter(video.subjects[0].splits.values()))
        subjects = video.subjects
        if home in swap and len(subjects) == 2:
            subjects = (subjects[0], moved(subjects[1], swap[home]))
        elif home in swap and index % 3 == 2:
            subjects = tuple(moved(subject, swap[home]) for subject in subjects)
        out.append(replace(video, subjects=subjects))
    return out


def plan(size_name: str, seed: int, leaky: bool = False) -> list[Video]:
    """All videos of a corpus, in a fixed order: training, validation, test, unlabelled."""
    size = SIZES[size_name]
    videos: list[Video] = []
    for split in size.videos:
        videos += plan_split(size, seed, split, first_number=len(videos) + 1)
    return (leak(videos) if leaky else videos) + plan_pool(size, seed)

"""Write synthetic videos in the form of the 6th ABAW release: videos, crops, annotations, lists, examples."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.stream import VideoStream
from numpy.typing import NDArray

from checkpoints.artifact import atomic_file
from checkpoints.framing import ARCFACE
from preprocessing.align import align
from synthwild.face import draw_face
from synthwild.people import Identity, Image, Landmarks, random_identity
from synthwild.plan import TEST, Video
from synthwild.process import Course, random_temper, simulate, smooth_noise
from synthwild.scene import Actor, Draw, film
from synthwild.voice import RATE, soundtrack
from wildaffect.tasks import AUS, TASKS

ANNOTATIONS = "6th ABAW Annotations"
TEST_LISTS = {
    "va": "Valence_Arousal_Estimation_Challenge_test_set_release.txt",
    "expr": "Expression_Recognition_Challenge_test_set_release.txt",
    "au": "Action_Unit_Detection_Challenge_test_set_release.txt",
}
EXAMPLE_VALUES = {"va": "0.0,0.0", "expr": "0", "au": ",".join("0" * 12)}
ALIGNED_SIZE = 112


def box_crop(frame: Image, marks: Landmarks) -> Image:
    """Cut out the face's box plus a margin of a tenth, clipped to the frame."""
    x0, y0, x1, y1 = marks.box
    pad = 0.1 * (y1 - y0)
    height, width = frame.shape[:2]
    left, top = max(int(x0 - pad), 0), max(int(y0 - pad), 0)
    return frame[top : min(int(y1 + pad) + 1, height), left : min(int(x1 + pad) + 1, width)]


def write_jpeg(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a BGR picture. If the run is interrupted here, the next run writes it again."""
    path.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())


class SoundWriter:
    """Encodes sound as AAC, in step with the frames of its file.

    The encoder starts with a packet before the first sample. In MP4, an edit list hides it; AVI cannot, so there it is
    left out.

    Args:
        container: the file.
        start: when the sound starts, in seconds.
        samples: ``[N]`` float32.
    """

    def __init__(self, container: av.container.OutputContainer, start: float, samples: NDArray[np.float32]):
        options = {"flags": "+bitexact"}
        self.container, self.samples = container, samples
        self.stream = container.add_stream("aac", rate=RATE, options=options, layout="mono")
        self.first, self.done = round(start * RATE), 0

    def write(self, until: float) -> None:
        """Append whole packets of sound until a time in seconds."""
        size = 1024  # of a packet of AAC
        while self.done + size <= min(until * RATE - self.first, len(self.samples)):
            self._append(size)

    def close(self) -> None:
        """Append the rest."""
        if self.done < len(self.samples):
            self._append(len(self.samples) - self.done)
        self._mux(self.stream.encode())

    def _append(self, count: int) -> None:
        part = np.ascontiguousarray(self.samples[None, self.done : self.done + count])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self.first + self.done, Fraction(1, RATE)
        self.done += count
        self._mux(self.stream.encode(frame))

    def _mux(self, packets: list[av.Packet]) -> None:
        avi = self.container.format.name == "avi"
        self.container.mux([p for p in packets if not (avi and p.pts is not None and p.pts < self.first)])


class VideoWriter:
    """Encodes BGR frames with true time stamps, on one thread so that the bytes depend only on the frames.

    Attributes:
        times: ``[frames + 1]`` when each frame starts, and when the last one ends, in seconds.
    """

    def __init__(self, path: Path, video: Video, rng: np.random.Generator):
        avi = video.extension == ".avi"
        self.container = av.open(str(path), "w", format="avi" if avi else "mp4", options={"fflags": "+bitexact"})
        rate = Fraction(video.rate).limit_denominator(1001)
        codec = "mpeg4" if avi else "libx264"
        options = {"threads": "1", "flags": "+bitexact"}
        if avi:
            options |= {"qscale": str(int(rng.integers(3, 8))), "flags": "+bitexact+qscale"}
        else:
            options |= {"preset": "superfast", "crf": str(int(rng.integers(20, 29)))}
        self.stream = cast("VideoStream", self.container.add_stream(codec, rate=rate, options=options))
        self.stream.width, self.stream.height = video.size
        self.stream.pix_fmt = "yuv420p"
        self.step = 1 / rate
        if video.variable_rate:
            self.step = Fraction(1, 90000)
            self.stream.codec_context.time_base = self.step
            gaps = rng.uniform(0.5, 1.8, video.frames) / video.rate * 90000
            self.pts = np.concatenate([[0], np.cumsum(gaps)]).astype(int)
        else:
            self.pts = np.arange(video.frames + 1)
        self.times = self.pts * float(self.step)
        self.sound: SoundWriter | None = None

    def add_sound(self, start: float, samples: NDArray[np.float32]) -> None:
        """Let the file have a sound track, from `start` seconds on; before the first frame is written."""
        self.sound = SoundWriter(self.container, start, samples)

    def write(self, picture: Image, t: int) -> None:
        """Append frame ``t``, and the sound up to its end."""
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts, frame.time_base = int(self.pts[t]), self.step
        self.container.mux(self.stream.encode(frame))
        if self.sound is not None:
            self.sound.write(self.times[t + 1])

    def close(self) -> None:
        """Finish the file."""
        self.container.mux(self.stream.encode())
        if self.sound is not None:
            self.sound.close()
        self.container.close()


Figure = Callable[[np.random.Generator], tuple[Identity, Draw]]
"""Draws a person at random: who it is, and how it is drawn."""


def drawn_figure(rng: np.random.Generator) -> tuple[Identity, Draw]:
    """A person drawn from flat shapes."""
    who = random_identity(rng)
    return who, lambda canvas, action, pose: draw_face(canvas, who, action, pose)


def players(video: Video, figure: Figure = drawn_figure) -> list[Actor]:
    """The people in a video and what they do; depends only on the plan."""
    actors = []
    for k, subject in enumerate(video.subjects):
        who = np.random.default_rng([*subject.identity, 11])
        (identity, draw), temper = figure(who), random_temper(who)
        length = max(video.frames, video.lines)
        course = simulate(np.random.default_rng([*video.seed, 13, k]), length, temper, video.dwell, subject.visits)
        actors.append(Actor(identity, draw, course))
    return actors


def runs(rng: np.random.Generator, length: int, share: float) -> np.ndarray:
    """A mask ``[T]`` of contiguous runs that together cover about ``share`` of the frames."""
    threshold = np.quantile(rng.normal(size=2048), share)
    return smooth_noise(rng, length, 6)[:, 0] < threshold


def annotate(course: Course, video: Video, first: bool) -> dict[str, np.ndarray]:
    """Label arrays ``[lines, width]`` per task, with the release's markers for missing labels.

    While the face is out of the frame, all labels are missing. Elsewhere, runs of frames lack the expression, one of
    valence and arousal, or single action units.
    """
    rng = np.random.default_rng([*video.seed, 17, int(first)])
    n = video.lines
    va, expr, au = course.valence_arousal[:n].copy(), course.expression[:n, None].copy(), course.au[:n].copy()
    test = TEST in video.subjects[0].splits.values()
    share = 0.0 if test else 0.06
    expr[runs(rng, n, share)] = -1
    for k in range(2):
        va[runs(rng, n, share / 2), k] = -5
    for k in rng.choice(au.shape[1], 3, replace=False):
        au[runs(rng, n, share), k] = -1
    if video.away and first:
        gone = slice(*video.away)
        va[gone], expr[gone], au[gone] = -5, -1, -1
    return {"va": va, "expr": expr, "au": au}


def label_text(task: str, labels: np.ndarray) -> str:
    """The text of an official label file."""
    if task == "va":
        rows = [",".join("-5" if x == -5 else f"{x:.3f}" for x in row) for row in labels]
    else:
        rows = [",".join(str(int(x)) for x in row) for row in labels]
    return "\n".join([TASKS[task].header, *rows]) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_labels(root: Path, video: Video, actors: Sequence[Actor]) -> None:
    """Write the label files of one video: into the release, or into `answers` for the test split."""
    for k, (subject, actor, name) in enumerate(zip(video.subjects, actors, video.ids(), strict=True)):
        labels = annotate(actor.course, video, first=k == 0)
        for task, split in subject.splits.items():
            folder = (
                root / "answers" / task
                if split == TEST
                else root / "release" / ANNOTATIONS / TASKS[task].folders[0] / split
            )
            write_text(folder / f"{name}.txt", label_text(task, labels[task]))


def make_video(root: Path, figure: Figure, sound: bool, video: Video) -> None:
    """Draw one video with its crops and labels, and give it sound if it is labelled.

    The video file is written last: if it exists, the rest does too.
    """
    cv2.setNumThreads(1)
    path = root / video.folder / (video.name + video.extension)
    if path.exists():
        return
    rng = np.random.default_rng([*video.seed, 19])
    actors = players(video, figure)
    labelled = video.folder != "unlabelled"
    crops = [root / "release" / "cropped" / name for name in video.ids()] if labelled else []
    aligned = [root / "release" / "cropped_aligned" / name for name in video.ids()] if labelled else []
    for folder in crops + aligned:
        folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        writer = VideoWriter(temporary, video, rng)
        if sound and labelled and (heard := soundtrack(video, [actor.course for actor in actors], writer.times)):
            writer.add_sound(*heard)
        frames = film(rng, actors, video.size, video.frames, video.away, pace=14 if labelled else 5)
        for t, (picture, seen) in enumerate(frames):
            writer.write(picture, t)
            for k, marks in enumerate(seen if labelled else ()):
                if marks is not None and rng.random() > 0.02:  # the detector of the real release missed faces too
                    name = f"{t + 1:05d}.jpg"
                    write_jpeg(crops[k] / name, box_crop(picture, marks))
                    write_jpeg(aligned[k] / name, align(picture, marks.points, ALIGNED_SIZE, ARCFACE))
        if labelled:
            write_labels(root, video, actors)
        writer.close()


def make_videos(
    root: Path, videos: Sequence[Video], workers: int, figure: Figure = drawn_figure, sound: bool = False
) -> Iterator[Video]:
    """Draw videos in several processes, or in this one if `workers` is 1, and yield each one when it is done."""
    make = partial(make_video, root, figure, sound)
    if workers <= 1:
        for video in videos:
            make(video)
            yield video
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for video, _ in zip(videos, pool.map(make, videos, chunksize=8), strict=True):
            yield video


def write_lists(root: Path, videos: Sequence[Video]) -> None:
    """Write the names of each task's test videos, and the example files that list every frame to predict."""
    for task in TASKS:
        tested = [
            (name, v.lines)
            for v in videos
            for s, name in zip(v.subjects, v.ids(), strict=True)
            if s.splits.get(task) == TEST
        ]
        if not tested:
            continue
        names = root / "release" / "names_of_videos_in_each_test_set" / TEST_LISTS[task]
        write_text(names, "".join(f"{name}\n" for name, _ in tested))
        rows = [f"{name}/{t:05d}.jpg,{EXAMPLE_VALUES[task]}" for name, lines in tested for t in range(1, lines + 1)]
        example = root / "release" / "test_set_examples" / f"CVPR_6th_ABAW_{TASKS[task].short}_test_set_example.txt"
        write_text(example, "\n".join([f"image_location,{TASKS[task].header}", *rows]) + "\n")


def write_intensities(root: Path, videos: Sequence[Video], figure: Figure) -> None:
    """Write the true intensity of every action unit of every frame, which the binary labels follow.

    The tables are `intensities.parquet` and, for the test split, `answers/intensities.parquet`; see docs/labels.md for
    their columns. Frames in which the face is out of the picture have no intensities.
    """
    parts: dict[Path, list[pa.Table]] = {root: [], root / "answers": []}
    for video in videos:
        for k, (subject, actor) in enumerate(zip(video.subjects, players(video, figure), strict=True)):
            if "au" not in subject.splits:
                continue
            split, values = subject.splits["au"], actor.course.intensity[: video.frames].copy()
            if video.away and k == 0:
                values[slice(*video.away)] = TASKS["au"].marker
            names = {"video": video.name, "subject": subject.suffix.removeprefix("_"), "split": split}
            columns = {name: [text] * len(values) for name, text in names.items()}
            numbers = dict(zip(AUS, values.astype(np.float32).T, strict=True))
            table = pa.table({**columns, "frame": np.arange(1, len(values) + 1), **numbers})
            parts[root / "answers" if split == TEST else root].append(table)
    for folder, tables in parts.items():
        if tables:
            with atomic_file(folder / "intensities.parquet") as temporary:
                pq.write_table(pa.concat_tables(tables), temporary)

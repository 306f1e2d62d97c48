"""What a user may pass to the predictor: files and folders, pictures and frames in memory, faces stores."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from checkpoints.errors import UserError
from preprocessing.faces import HEADER, FacesStore
from preprocessing.items import Item
from preprocessing.pictures import to_rgb
from preprocessing.shard import frames_of
from preprocessing.video import Frame
from wildaffect.inference.clips import list_clips

TAKES = (
    "a path of a video, picture, folder or faces store, a picture (PIL, or RGB uint8 [H, W, 3]), frames with fps= or "
    "times=, or a list of any of these"
)


@dataclass(frozen=True)
class StoredVideo:
    """One video of a faces store."""

    store: FacesStore
    video: str


Clip = Item | StoredVideo


@dataclass
class Inputs:
    """What is to be predicted.

    Attributes:
        clips: In order, each with a name of its own.
        single: The source is one clip, not a list or a folder of clips.
        left_out: What is not predicted, and why.
    """

    clips: list[Clip]
    single: bool = False
    left_out: list[str] = field(default_factory=list)


def read_inputs(
    source: Any, *, fps: float | None = None, times: Iterable[float] | None = None, crops: bool = False
) -> Inputs:
    """Find out what a user passed.

    Args:
        source: See `TAKES`.
        fps: Frames per second, for frames.
        times: Time of each frame in seconds instead.
        crops: The pictures already are faces.

    Raises:
        UserError: It is none of these, does not exist, or is frames without a clock.
    """
    clock = Clock(fps, times)
    if isinstance(source, FacesStore):
        return Inputs([StoredVideo(source, video) for video in dict.fromkeys(source.video)])
    if isinstance(source, str | os.PathLike):
        return _of_paths([Path(source)], clock, crops)
    if isinstance(source, np.ndarray) and source.ndim == 4:
        return Inputs([_frames(source, clock)], single=True)
    if isinstance(source, np.ndarray | Image.Image):
        picture = Frame(1, float("nan"), as_picture(source, "the picture"))
        return Inputs([Item("picture", Path("picture"), "picture", "picture", frames=[picture])], single=True)
    if not isinstance(source, Iterable) or isinstance(source, bytes):
        raise _refused(source)
    if clock:
        return Inputs([_frames(source, clock)], single=True)
    if not isinstance(source, Sequence):
        first, source = _peek(source)
        if isinstance(first, np.ndarray | Image.Image):
            raise UserError("frames need a clock: pass fps= or times= (or a list, to predict each as a picture)")
    return _of_list(list(source), crops)


@dataclass(frozen=True)
class Clock:
    """When frames were taken; false if nobody says so."""

    fps: float | None = None
    times: Iterable[float] | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and self.times is not None:
            raise UserError("pass either fps= or times=, not both")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise UserError(f"fps={self.fps}: expected a positive number")

    def __bool__(self) -> bool:
        return self.fps is not None or self.times is not None

    def seconds(self) -> Iterator[float]:
        """The times of successive frames, each later than the one before.

        Raises:
            UserError: They are not.
        """
        if self.fps is not None:
            number = 0
            while True:
                yield number / self.fps
                number += 1
        last = float("-inf")
        for number, time_s in enumerate(() if self.times is None else self.times, 1):
            if not last < float(time_s) < float("inf"):
                raise UserError(f"times= must increase: entry {number} is {time_s}")
            last = float(time_s)
            yield last


class Frames:
    """Frames in memory, or as they come, with their times; None stands for a frame that is missing.

    Attributes:
        error: What was wrong with a frame, after which there are no more.
    """

    def __init__(self, pictures: Iterable[Any], clock: Clock) -> None:
        self.pictures, self.clock = pictures, clock
        self.error: UserError | None = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            UserError: A frame is not a picture, or the times are not those of the frames.
        """
        try:
            yield from self._read()
        except UserError as error:
            self.error = error
            raise

    def _read(self) -> Iterator[Frame]:
        seconds, index = self.clock.seconds(), 0
        for index, picture in enumerate(self.pictures, 1):
            time_s = next(seconds, None)
            if time_s is None:
                raise UserError(f"times= has {index - 1} entries and there are more frames")
            yield Frame(index, time_s, None if picture is None else as_picture(picture, f"frame {index}"))
        if isinstance(self.clock.times, Sized) and next(seconds, None) is not None:
            raise UserError(f"times= has more entries than there are frames ({index})")


def as_picture(value: Any, name: str) -> np.ndarray:
    """A picture of the user's as RGB, uint8 `[H, W, 3]`.

    One of PIL's is read as its file would be, but of 16-bit colours PIL keeps only the upper 8 bits.

    Raises:
        UserError: It is something else, or damaged.
    """
    if isinstance(value, Image.Image):
        try:
            return to_rgb(value)
        except Exception as error:  # PIL reads the pixels only now, and its decoders raise all kinds of errors
            raise UserError(f"{name} cannot be read: {error}") from None
    if not isinstance(value, np.ndarray):
        raise UserError(f"{name} is a {type(value).__name__}: expected a PIL picture or a NumPy array")
    if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3 or not value.size:
        raise UserError(f"{name} is {value.dtype} {list(value.shape)}: expected RGB, uint8 [H, W, 3]")
    return value


def _frames(pictures: Iterable[Any], clock: Clock) -> Item:
    if not clock:
        raise UserError("frames need a clock: pass fps= or times=")
    return Item("frames", Path("frames"), "frames", "video", frames=Frames(pictures, clock))


def _of_paths(paths: list[Path], clock: Clock, crops: bool) -> Inputs:
    """Clips of files and folders."""
    if len(paths) == 1 and (paths[0] / HEADER).is_file():
        return read_inputs(FacesStore(paths[0]))
    items, left_out = list_clips(paths, crops=crops)
    if clock:
        if len(items) > 1 or items[0].kind != "frames":
            raise UserError(f"{paths[0]} has its own times: fps= and times= are for frames")
        pictures = (frame.image for frame in frames_of(items[0], left_out.append))
        items = [replace(items[0], frames=Frames(pictures, clock))]
    single = len(paths) == len(items) == 1 and (paths[0].is_file() or items[0].path == paths[0])
    return Inputs(list(items), single, left_out)


def _of_list(sources: list[Any], crops: bool) -> Inputs:
    """Clips of a list, with distinct names."""
    if not sources:
        raise UserError(f"the list is empty: pass {TAKES}")
    if all(isinstance(source, str | os.PathLike) and not (Path(source) / HEADER).is_file() for source in sources):
        return replace(_of_paths([Path(source) for source in sources], Clock(), crops), single=False)
    for source in sources:
        if not isinstance(source, str | os.PathLike | np.ndarray | Image.Image | FacesStore):
            raise _refused(source)
    parts = [read_inputs(source, crops=crops) for source in sources]
    clips: list[Clip] = []
    taken: Counter[str] = Counter()
    for clip in chain.from_iterable(part.clips for part in parts):
        taken[clip.video] += 1
        again = isinstance(clip, Item) and taken[clip.video] > 1
        clips.append(replace(clip, video=f"{clip.video}~{taken[clip.video]}") if again else clip)
    return Inputs(clips, left_out=[line for part in parts for line in part.left_out])


def _refused(source: Any) -> UserError:
    return UserError(f"{type(source).__name__} cannot be predicted: pass {TAKES}")


def _peek(source: Iterable[Any]) -> tuple[Any, Iterator[Any]]:
    """The first of some things, and all of them."""
    iterator = iter(source)
    first = next(iterator, None)
    return first, iter(()) if first is None else chain([first], iterator)

"""Turns the frames that a decoder gives into pictures: upright, of standard range and of one size."""

from collections.abc import Callable
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from preprocessing.hdr import ToneMapper


class Converter:
    """Turns decoded frames into upright RGB pictures of the size of the first."""

    def __init__(self, stream: VideoStream, report: Callable[[str], None]) -> None:
        self._format = VideoReformatter()  # shared by all frames: preparing it takes longer than converting a frame
        self._aspect = float(stream.sample_aspect_ratio or 1)  # of a pixel: a face must not come out squeezed
        self._tone = ToneMapper.of(stream.codec_context)
        self._size: tuple[int, ...] = ()
        self._shapes: set[tuple[int, ...]] = set()
        self._failed = False
        self._report = report
        if self._tone:
            report(f"is HDR ({self._tone.name}): its colours were tone-mapped to standard range")

    def __call__(self, frame: av.VideoFrame, index: int) -> np.ndarray | None:
        """The picture [H, W, 3] uint8; None if its pixels cannot be converted."""
        width = max(1, round(frame.width * self._aspect))
        try:
            kind = "rgb48le" if self._tone else "rgb24"
            image: Any = self._format.reformat(frame, width=width, format=kind, threads=1).to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            if not self._failed:
                self._report(f"frame {index} is of a kind that cannot be converted: {error}")
            self._failed = True
            return None
        if self._tone:
            image = self._tone(image)
        image = _upright(image, frame)
        self._size = self._size or image.shape
        if image.shape == self._size:
            return image
        if image.shape not in self._shapes:
            self._shapes.add(image.shape)
            (height, width), (was_height, was_width) = image.shape[:2], self._size[:2]
            self._report(
                f"the frame size changes to {width}x{height} at frame {index}: boxes are in pixels of the first "
                f"frame's {was_width}x{was_height}"
            )
        return _fitted(image, self._size[0], self._size[1])


def _upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn and mirror a picture as its frame's display matrix says, to the nearest quarter turn."""
    try:
        side: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside it is something that PyAV does not know; its angle is right if nothing is mirrored
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
    if side is None:
        return image
    # A stored (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(side, np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _fitted(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a picture into a black one of another size, without changing its shape."""
    scale = min(height / image.shape[0], width / image.shape[1])
    h, w = (max(1, round(side * scale)) for side in image.shape[:2])
    top, left = (height - h) // 2, (width - w) // 2
    scaled = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return cv2.copyMakeBorder(scaled, top, height - h - top, left, width - w - left, cv2.BORDER_CONSTANT)

"""Reads the frames of animated pictures."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from checkpoints.errors import UserError
from preprocessing.pictures import FORMATS, MAX_PIXELS, to_rgb

DEFAULT_S = 0.04
"""Duration of a frame that has none."""


def read_animation(path: Path, report: Callable[[str], None]) -> Iterator[tuple[float, np.ndarray]]:
    """Decode an animated picture that :func:`preprocessing.pictures.animated` names.

    Args:
        path: The file.
        report: Called with a line if the file breaks off.

    Yields:
        The time in seconds and the picture, RGB uint8 [H, W, 3], of each frame.

    Raises:
        UserError: No frame can be read.
    """
    time_s, read = 0.0, 0
    try:
        with Image.open(path, formats=FORMATS) as animation:
            if animation.width * animation.height > MAX_PIXELS:
                raise UserError(f"claims {animation.width}x{animation.height} pixels; at most {MAX_PIXELS} are read")
            frames = ImageSequence.Iterator(animation)
            if animation.info.get("default_image"):  # of a PNG: shown by programs that do not know animations
                next(frames)
            for picture in frames:
                image = to_rgb(picture)
                yield time_s, image
                read += 1
                time_s += picture.info.get("duration", 0) / 1000 or DEFAULT_S
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise all kinds of errors on damaged files
        if not read:
            raise UserError(f"cannot be read as an animation: {error}") from None
        report(f"reading stopped after frame {read}: {error}")

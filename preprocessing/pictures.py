"""Reading single pictures: whatever the file holds, eight-bit RGB the right way up."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from checkpoints.errors import UserError
from preprocessing.video import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image


def read_picture(source: Path | bytes) -> np.ndarray:
    """Read a picture.

    EXIF orientation is applied, grey and 16-bit pictures become eight-bit RGB, transparent ones are laid on white.

    Args:
        source: A file, or its content.

    Returns:
        RGB, uint8 [H, W, 3].

    Raises:
        UserError: It is no picture, is damaged, or claims more than `MAX_PIXELS`.
    """
    import cv2
    from PIL import Image, UnidentifiedImageError

    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; the limit here is `MAX_PIXELS`
            picture = Image.open(io.BytesIO(data))  # reads no more than the header
        if picture.width * picture.height > MAX_PIXELS:
            raise UserError(f"claims {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are read")
        if picture.mode in ("L", "RGB") and picture.format == "JPEG":  # three times faster, and the same
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if image is not None:
                return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return _to_rgb(picture)
    except Image.DecompressionBombError:
        raise UserError(f"claims too many pixels; at most {MAX_PIXELS} are read") from None
    except UnidentifiedImageError:  # whose text holds an address in memory
        raise UserError("cannot be read as a picture: it has the form of none") from None
    except UserError:
        raise
    except Exception as error:  # damaged files bring any kind out of Pillow's decoders
        reason = getattr(error, "strerror", None) or str(error).replace(str(source), "").strip()
        raise UserError(f"cannot be read as a picture: {reason}") from None


def _to_rgb(picture: Image) -> np.ndarray:
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to white
        grey = (np.asarray(picture).astype(np.int64) * 255 // 65535).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(picture.convert("RGB"))


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """Scale a ready face to uint8 [size, size, 3]; one that is not square is first padded by repeating its edge."""
    import cv2

    height, width = image.shape[:2]
    side = max(height, width)
    if height != width:
        top, left = (side - height) // 2, (side - width) // 2
        image = cv2.copyMakeBorder(
            image, top, side - height - top, left, side - width - left, borderType=cv2.BORDER_REPLICATE
        )
    if side == size:
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)

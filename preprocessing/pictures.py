"""Reads single pictures of any kind as upright 8-bit RGB."""

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from checkpoints.errors import UserError
from preprocessing.video import MAX_PIXELS


def read_picture(source: Path | bytes) -> np.ndarray:
    """Read a picture.

    EXIF orientation is applied. Grey and 16-bit pictures become 8-bit RGB. Transparent ones get a white background.

    Args:
        source: A file, or its content.

    Returns:
        RGB, uint8 [H, W, 3].

    Raises:
        UserError: It is not a picture, is damaged, or claims more than `MAX_PIXELS`.
    """
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large pictures; our limit is `MAX_PIXELS`
            picture = Image.open(io.BytesIO(data))  # reads only the header
        if picture.width * picture.height > MAX_PIXELS:
            raise UserError(f"claims {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are read")
        if picture.mode in ("L", "RGB") and picture.format == "JPEG":  # same result, three times faster
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if image is not None:
                return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return _to_rgb(picture)
    except Image.DecompressionBombError:
        raise UserError(f"claims too many pixels; at most {MAX_PIXELS} are read") from None
    except UnidentifiedImageError:  # its message contains a memory address
        raise UserError("cannot be read as a picture: unknown format") from None
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise all kinds of errors on damaged files
        reason = getattr(error, "strerror", None) or str(error).replace(str(source), "").strip()
        raise UserError(f"cannot be read as a picture: {reason}") from None


def _to_rgb(picture: Image.Image) -> np.ndarray:
    """Turn a picture of any mode upright and convert it to RGB, uint8 [H, W, 3]."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip to white
        grey = (np.asarray(picture).astype(np.int64) * 255 // 65535).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(picture.convert("RGB"))


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """Scale a cropped face to uint8 [size, size, 3]. If it is not square, it is first padded by repeating its edge."""
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

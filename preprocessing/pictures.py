"""Reads single pictures of any kind as upright 8-bit RGB."""

import io
import struct
import warnings
from pathlib import Path
from typing import BinaryIO, Literal

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from checkpoints.errors import UserError

MAX_PIXELS = 8192 * 8192
"""Larger pictures are refused before they are read: a file of a few bytes can claim any size."""
Image.init()
_NAMES = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "PPM", "GIF", "AVIF", "JPEG2000", "ICO", "SGI", "PCX")
FORMATS = [name for name in _NAMES if name in Image.OPEN]
"""Pillow's names of the formats that are read: those that are known by their content and run no other program."""
PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*")
ORIENTATION = 0x0112


def picture_kind(path: Path) -> Literal["picture", "video"] | None:
    """What Pillow finds in a file: a picture, an animation (a video), or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as picture:
                moves = picture.format == "GIF" and getattr(picture, "is_animated", False)
                return "video" if moves or animated(path) else "picture"
    except Exception:  # Pillow's decoders raise all kinds of errors on damaged files
        return None


def animated(path: Path) -> bool:
    """Whether a file is an animated WebP, PNG or AVIF.

    FFmpeg does not decode these everywhere, or takes no notice of what is transparent.
    """
    try:
        with path.open("rb") as file:
            start = file.read(21)
            if start[:8] == PNG:
                return _moves(file)
    except OSError:
        return False
    if start[4:12] == b"ftypavis":
        return "AVIF" in FORMATS
    return start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X" and bool(start[20] & 2)


def _moves(file: BinaryIO) -> bool:
    """Whether a PNG has several frames, which a chunk before the first pixels says."""
    file.seek(len(PNG))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"acTL":
            return int.from_bytes(file.read(4), "big") > 1
        if name == b"IDAT":
            break
        file.seek(length + 4, io.SEEK_CUR)
    return False


def read_picture(source: Path | bytes) -> np.ndarray:
    """Read a picture.

    EXIF orientation is applied. Grey, 10- to 16-bit and float pictures become 8-bit RGB. Transparent ones get a white
    background.

    Args:
        source: A file, or its content.

    Returns:
        RGB, uint8 [H, W, 3].

    Raises:
        UserError: It is not a picture, is damaged, or claims more than `MAX_PIXELS`.
    """
    try:
        data = source if isinstance(source, bytes) else picture_bytes(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large pictures; our limit is `MAX_PIXELS`
            if data[:4] in TIFF:
                deep = _deep(data, *_tiff_size(data))
                if deep is not None:
                    return deep
            picture = Image.open(io.BytesIO(data), formats=FORMATS)  # reads only the header
        if picture.width * picture.height > MAX_PIXELS:
            raise UserError(f"claims {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are read")
        if picture.format == "PNG" and data[24] == 16 and not picture.has_transparency_data:
            deep = _deep(data, picture.width, picture.height, picture.getexif().get(ORIENTATION, 1))
            if deep is not None:
                return deep
        if picture.mode in ("L", "RGB") and picture.format == "JPEG":  # same result, three times faster
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if image is not None:
                return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return to_rgb(picture)
    except Image.DecompressionBombError:
        raise UserError(f"claims too many pixels; at most {MAX_PIXELS} are read") from None
    except UnidentifiedImageError:  # its message contains a memory address
        raise UserError("cannot be read as a picture: unknown format") from None
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise all kinds of errors on damaged files
        raise UserError(f"cannot be read as a picture: {str(error).strip()}") from None


def picture_bytes(path: Path) -> bytes:
    """The content of a picture's file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a table gives a path that cannot be one
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot be read as a picture: {reason}") from None


def _tiff_size(data: bytes) -> tuple[int, int, int]:
    """Width, height and orientation of a TIFF, also of kinds that Pillow does not know."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(directory.next)
    directory.load(file)
    return int(directory[256]), int(directory[257]), int(directory.get(ORIENTATION, 1))


def _deep(data: bytes, width: int, height: int, orientation: int = 1) -> np.ndarray | None:
    """Read a picture of more than 8 bits, which Pillow would cut to its upper 8; None for any other."""
    if width * height > MAX_PIXELS:
        raise UserError(f"claims {width}x{height} pixels; at most {MAX_PIXELS} are read")
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if values is None or values.dtype == np.uint8:
        return None
    if values.ndim == 3 and values.shape[2] == 4:
        values = values[:, :, :3]
    image = eight_bits(values)
    picture = Image.fromarray(image if image.ndim == 2 else np.ascontiguousarray(image[:, :, ::-1]))
    picture.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def eight_bits(values: np.ndarray) -> np.ndarray:
    """Scale numbers of any depth to uint8.

    Cameras keep 10, 12 or 14 bits in numbers of 16 without saying so: the depth is the smallest that holds the largest
    value. Floats are taken as 0..1, or as whole numbers if the largest is above 16.
    """
    values = np.nan_to_num(values, posinf=0, neginf=0) if values.dtype.kind == "f" else values.astype(np.int64)
    top = float(values.max(initial=0))
    if values.dtype.kind == "f" and top <= 16:
        return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    bits = next((bits for bits in (8, 10, 12, 14) if top < 1 << bits), 16)
    whole = values.astype(np.int64).clip(0, (1 << bits) - 1)
    return (whole * 255 // ((1 << bits) - 1)).astype(np.uint8)


def to_rgb(picture: Image.Image) -> np.ndarray:
    """Turn a picture of any mode upright and convert it to RGB, uint8 [H, W, 3]."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode[0] in "IF":  # 16-bit or float grey, which Pillow's own conversion would clip
        return np.repeat(eight_bits(np.asarray(picture))[:, :, None], 3, axis=2)
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

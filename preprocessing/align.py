"""Alignment: a similarity transform moves the five landmarks of a face to fixed places in a square picture."""

import cv2
import numpy as np

from checkpoints.framing import OURS, Framing

JPEG_QUALITY = 95


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarity transform (rotation, uniform scale, shift; no reflection) between two sets of points.

    In two dimensions, Umeyama's solution (1991, IEEE TPAMI 13(4)) is a division of complex numbers.

    Args:
        source: Points [P, 2].
        target: Where they should go [P, 2].

    Returns:
        Matrix [2, 3] for column vectors (x, y, 1).

    Raises:
        ValueError: The source points coincide.
    """
    z = source[:, 0] + 1j * source[:, 1]
    w = target[:, 0] + 1j * target[:, 1]
    centred = z - z.mean()
    power = np.vdot(centred, centred).real
    if not power > 0:
        raise ValueError("landmarks coincide")
    a = np.vdot(centred, w - w.mean()) / power
    shift = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, shift.real], [a.imag, a.real, shift.imag]])


def in_aligned(landmarks: np.ndarray, size: int, framing: Framing) -> np.ndarray:
    """Where landmarks in pixels of a picture `[5, 2]` lie in the aligned face: float32 `[5, 2]`."""
    matrix = similarity(np.asarray(landmarks, dtype=np.float64), framing.template(size))
    return (landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def align(image: np.ndarray, landmarks: np.ndarray, size: int, framing: Framing = OURS) -> np.ndarray:
    """Cut a face out of a picture, upright and scaled.

    If the face is much larger than the result, its surroundings are first shrunk by area averaging, so that skin and
    hair do not alias. Pixels outside the picture repeat its border.

    Args:
        image: RGB, uint8 [H, W, 3].
        landmarks: Five points (x, y) in pixels [5, 2].
        size: Side of the result.
        framing: Where the landmarks go.

    Returns:
        RGB, uint8 [size, size, 3].
    """
    matrix = similarity(np.asarray(landmarks, dtype=np.float64), framing.template(size))
    shrink = int(1 / np.hypot(matrix[0, 0], matrix[1, 0]))
    if shrink >= 2:
        image, matrix = _shrunk(image, matrix, size, shrink)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _shrunk(image: np.ndarray, matrix: np.ndarray, size: int, shrink: int) -> tuple[np.ndarray, np.ndarray]:
    """Shrink the part of the picture that the result shows by an integer factor, and adapt the transform to it."""
    inverse = np.linalg.inv(matrix[:, :2])
    corners = (np.array([[0, 0], [size, 0], [0, size], [size, size]]) - matrix[:, 2]) @ inverse.T
    height, width = image.shape[:2]
    x1, y1 = np.clip(np.floor(corners.min(0)).astype(int) - shrink, 0, [width - 1, height - 1])
    x2, y2 = np.clip(np.ceil(corners.max(0)).astype(int) + shrink, 1, [width, height])
    columns, rows = (x2 - x1) // shrink, (y2 - y1) // shrink
    if columns < 1 or rows < 1:
        return image, matrix
    part = image[y1 : y1 + rows * shrink, x1 : x1 + columns * shrink]
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    # Pixel centres: x = x1 + (x_small + 0.5) * shrink - 0.5
    to_source = np.array([[shrink, 0, x1 + (shrink - 1) / 2], [0, shrink, y1 + (shrink - 1) / 2], [0, 0, 1]])
    return small, matrix @ to_source


def encode_jpeg(image: np.ndarray) -> bytes:
    """Encode an RGB picture, uint8 [H, W, 3], as JPEG."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"cannot encode a picture of shape {image.shape}")
    return bytes(data)


def decode_jpeg(data: bytes) -> np.ndarray:
    """Decode JPEG bytes to an RGB picture, uint8 [H, W, 3]."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("not a JPEG")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

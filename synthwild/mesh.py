"""Compiled loops over a mesh: sums of shapes, normals, light, and the rasteriser (a z-buffer)."""

import numpy as np

from checkpoints.errors import UserError

try:
    from numba import njit
except ImportError as error:
    raise UserError(f"faces cannot be rendered ({error}): pip install 'wildaffect[render]'") from None


@njit(cache=True, fastmath=True)
def blend(base: np.ndarray, shapes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``base + weights @ shapes`` for ``[N, 3]``, ``[E, N, 3]``, ``[E]``; shapes of weight 0 cost nothing."""
    out = base.copy()
    for k in range(len(weights)):
        if weights[k] != 0:
            weight, shape = weights[k], shapes[k]
            for i in range(len(base)):
                out[i, 0] += weight * shape[i, 0]
                out[i, 1] += weight * shape[i, 1]
                out[i, 2] += weight * shape[i, 2]
    return out


@njit(cache=True, fastmath=True)
def normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals ``[N, 3]`` of the vertices: their triangles' normals weighted by area."""
    out = np.zeros_like(points)
    for i in range(len(triangles)):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            out[k, 0] += x
            out[k, 1] += y
            out[k, 2] += z
    for i in range(len(points)):
        length = np.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2)
        if length > 0:
            for k in range(3):
                out[i, k] /= length
    return out


@njit(cache=True, fastmath=True)
def shade(
    albedo: np.ndarray,
    normal: np.ndarray,
    key: np.ndarray,
    tint: np.ndarray,
    fill: np.ndarray,
    ambient: float,
    gloss: np.ndarray,
    power: float,
) -> np.ndarray:
    """Light a surface: a soft key light, a weaker fill light, ambient light from above, and a highlight.

    Args:
        albedo: linear colours ``[N, 3]``.
        normal: unit normals ``[N, 3]`` in the camera's coordinates.
        key: direction of the key light ``[3]``.
        tint: its colour ``[3]``.
        fill: direction of the fill light times its strength ``[3]``.
        ambient: strength of the ambient light.
        gloss: strength of the highlight ``[N]``.
        power: how narrow it is.

    Returns:
        Display colours ``[N, 3]`` in 0..1.
    """
    out = np.empty_like(albedo)
    hx, hy, hz = key[0], key[1], key[2] + 1.0
    half = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-6
    for i in range(len(albedo)):
        x, y, z = normal[i, 0], normal[i, 1], normal[i, 2]
        direct = max(0.0, (x * key[0] + y * key[1] + z * key[2] + 0.25) / 1.25)
        other = max(0.0, x * fill[0] + y * fill[1] + z * fill[2])
        base = ambient * (0.8 + 0.2 * y) + other
        shine = gloss[i] * max(0.0, (x * hx + y * hy + z * hz) / half) ** power
        for k in range(3):
            value = albedo[i, k] * (base + direct * tint[k]) + shine * tint[k]
            out[i, k] = min(max(value, 0.0), 1.0) ** (1 / 2.2)
    return out


@njit(cache=True, fastmath=True)
def raster(pixels: np.ndarray, colours: np.ndarray, triangles: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw the triangles that face the camera.

    Args:
        pixels: x, y (downwards) in pixels and depth (larger is nearer) ``[N, 3]``.
        colours: ``[N, 3]``, interpolated over each triangle.
        triangles: ``[T, 3]``, counter-clockwise with y upwards.
        height: of the picture.
        width: of the picture.

    Returns:
        Picture ``[height, width, 4]``: three colours, and 1 where something was drawn.
    """
    out = np.zeros((height, width, 4), np.float32)
    depth = np.full((height, width), -np.inf, np.float32)
    for i in range(len(triangles)):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        x0, y0, x1, y1, x2, y2 = pixels[a, 0], pixels[a, 1], pixels[b, 0], pixels[b, 1], pixels[c, 0], pixels[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area >= 0:
            continue
        left, right = max(int(np.ceil(min(x0, x1, x2))), 0), min(int(np.floor(max(x0, x1, x2))), width - 1)
        top, bottom = max(int(np.ceil(min(y0, y1, y2))), 0), min(int(np.floor(max(y0, y1, y2))), height - 1)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                u = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
                v = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
                w = 1 - u - v
                if u >= -1e-4 and v >= -1e-4 and w >= -1e-4:
                    z = u * pixels[a, 2] + v * pixels[b, 2] + w * pixels[c, 2]
                    if z > depth[y, x]:
                        depth[y, x] = z
                        for k in range(3):
                            out[y, x, k] = u * colours[a, k] + v * colours[b, k] + w * colours[c, k]
                        out[y, x, 3] = 1
    return out

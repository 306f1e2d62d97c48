"""Compiled loops over a mesh: sums of shapes, normals, light, projection, and the rasteriser (a z-buffer)."""

import numpy as np

from checkpoints.errors import UserError

try:
    from numba import njit
except ImportError as error:
    raise UserError(f"faces cannot be rendered ({error}): pip install 'wildaffect[render]'") from None


EDGE = np.float32(1e-4)  # neighbouring triangles overlap by this share, so that no pixel falls between them


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
def deform(base: np.ndarray, starts: np.ndarray, at: np.ndarray, moves: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same for shapes that move few vertices: shape k moves vertices ``at[starts[k]:starts[k + 1]]`` by `moves`."""
    out = base.copy()
    for k in range(len(weights)):
        if weights[k] != 0:
            for j in range(starts[k], starts[k + 1]):
                i = at[j]
                out[i, 0] += weights[k] * moves[j, 0]
                out[i, 1] += weights[k] * moves[j, 1]
                out[i, 2] += weights[k] * moves[j, 2]
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
    sharpness: int,
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
        sharpness: how narrow it is: the binary logarithm of Phong's exponent.

    Returns:
        Display colours ``[N, 3]`` in 0..1, by a gamma of 2.
    """
    out = np.empty_like(albedo)
    hx, hy, hz = key[0], key[1], key[2] + 1.0
    half = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-6
    for i in range(len(albedo)):
        x, y, z = normal[i, 0], normal[i, 1], normal[i, 2]
        direct = max(0.0, (x * key[0] + y * key[1] + z * key[2] + 0.25) / 1.25)
        other = max(0.0, x * fill[0] + y * fill[1] + z * fill[2])
        base = ambient * (0.8 + 0.2 * y) + other
        shine = max(0.0, (x * hx + y * hy + z * hz) / half)
        for _ in range(sharpness):
            shine *= shine
        shine *= gloss[i]
        for k in range(3):
            value = albedo[i, k] * (base + direct * tint[k]) + shine * tint[k]
            out[i, k] = np.sqrt(min(max(value, 0.0), 1.0))
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
        share = np.float32(1) / area
        ux, uy, vx, vy = (y1 - y2) * share, (x2 - x1) * share, (y2 - y0) * share, (x0 - x2) * share
        dz_u, dz_v, far = pixels[a, 2] - pixels[c, 2], pixels[b, 2] - pixels[c, 2], pixels[c, 2]
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                px, py = np.float32(x) - x2, np.float32(y) - y2
                u, v = ux * px + uy * py, vx * px + vy * py
                if u >= -EDGE and v >= -EDGE and u + v <= 1 + EDGE:
                    z = far + u * dz_u + v * dz_v
                    if z > depth[y, x]:
                        depth[y, x] = z
                        w = 1 - u - v
                        for k in range(3):
                            out[y, x, k] = u * colours[a, k] + v * colours[b, k] + w * colours[c, k]
                        out[y, x, 3] = 1
    return out


@njit(cache=True, fastmath=True)
def project(points: np.ndarray, matrix: np.ndarray, distance: float, place: np.ndarray) -> np.ndarray:
    """Look at points through a camera.

    Args:
        points: ``[N, 3]``, y upwards.
        matrix: ``[3, 4]``, turns and shifts them to the camera's coordinates.
        distance: of the camera from the origin of these.
        place: x and y in pixels where the origin is seen, and pixels per unit there.

    Returns:
        x, y (downwards) in pixels, and depth (larger is nearer) ``[N, 3]``.
    """
    out = np.empty_like(points)
    for i in range(len(points)):
        x, y, z = points[i]
        across = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]
        up = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]
        depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
        scale = place[2] * distance / max(distance - depth, 0.1 * distance)
        out[i, 0] = place[0] + scale * across
        out[i, 1] = place[1] - scale * up
        out[i, 2] = depth
    return out


@njit(cache=True, fastmath=True)
def bounds(pixels: np.ndarray) -> np.ndarray:
    """Smallest and largest x, and smallest and largest y, of ``[N, 3]``."""
    out = np.array([np.inf, -np.inf, np.inf, -np.inf])
    for i in range(len(pixels)):
        out[0], out[1] = min(out[0], pixels[i, 0]), max(out[1], pixels[i, 0])
        out[2], out[3] = min(out[2], pixels[i, 1]), max(out[3], pixels[i, 1])
    return out


@njit(cache=True, fastmath=True)
def paste(canvas: np.ndarray, drawn: np.ndarray, finer: int) -> None:
    """Average what `raster` drew over ``finer`` by ``finer`` pixels, and lay it onto a canvas in place.

    Args:
        canvas: uint8 ``[H, W, 3]``.
        drawn: ``[H * finer, W * finer, 4]``.
        finer: pixels of `drawn` per pixel of the canvas, each way.
    """
    share = 1 / finer**2
    for y in range(canvas.shape[0]):
        for x in range(canvas.shape[1]):
            b, g, r, cover = 0.0, 0.0, 0.0, 0.0
            for v in range(y * finer, (y + 1) * finer):
                for u in range(x * finer, (x + 1) * finer):
                    b += drawn[v, u, 0]
                    g += drawn[v, u, 1]
                    r += drawn[v, u, 2]
                    cover += drawn[v, u, 3]
            if cover > 0:
                under = 1 - cover * share
                canvas[y, x, 0] = np.uint8(255 * b * share + under * canvas[y, x, 0] + 0.5)
                canvas[y, x, 1] = np.uint8(255 * g * share + under * canvas[y, x, 1] + 0.5)
                canvas[y, x, 2] = np.uint8(255 * r * share + under * canvas[y, x, 2] + 0.5)

"""A morphable model of a few thousand vertices for tests: a bowl-shaped face with eyes, whose shapes are bumps."""

from pathlib import Path

import numpy as np

from synthwild.muscles import NUISANCE, RESTING, SHAPES

COLUMNS, ROWS = 45, 61
EYES = {"sclera_l": (3.15, 3.4), "sclera_r": (-3.15, 3.4)}


def depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The bowl, and a nose on it."""
    bowl = 11.5 * np.sqrt(np.clip(1 - (x / 9.2) ** 2 - (y / 15) ** 2, 0, 1))
    return bowl + 2 * np.exp(-(x**2) / 0.8 - (y - 0.8) ** 2 / 2)


def grid(x: np.ndarray, y: np.ndarray, first: int) -> np.ndarray:
    """Triangles of a lattice whose rows run upwards, counter-clockwise."""
    number = np.arange(len(x) * len(y)).reshape(len(y), len(x)) + first
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])


def landmarks() -> np.ndarray:
    """Where the 68 Multi-PIE landmarks are, x and y, in centimetres."""

    def arc(x0: float, x1: float, y0: float, rise: float, count: int) -> list[tuple[float, float]]:
        u = np.linspace(0, 1, count)
        return list(zip(x0 + (x1 - x0) * u, y0 + rise * np.sin(np.pi * u), strict=True))

    jaw = arc(-7.4, 7.4, 3.7, -11.3, 17)
    brows = arc(-5.6, -1.2, 5.6, 0.6, 5) + arc(1.2, 5.6, 5.6, 0.6, 5)
    nose = [(0, 3.7), (0, 2.6), (0, 1.5), (0, 0.4), (-1.25, -1.1), (-0.6, -1.2), (0, -1.3), (0.6, -1.2), (1.25, -1.1)]
    eyes = [(-4.4, 3.4), (-3.6, 3.9), (-2.7, 3.9), (-1.9, 3.3), (-2.7, 3.0), (-3.6, 3.0)]
    eyes += [(1.9, 3.3), (2.7, 3.9), (3.6, 3.9), (4.4, 3.4), (3.6, 3.0), (2.7, 3.0)]
    lips = arc(-2.5, 2.5, -3.5, 0.9, 7) + arc(2.5, -2.5, -3.5, -0.9, 7)[1:-1]
    lips += arc(-2.1, 2.1, -3.5, 0.15, 5) + arc(2.1, -2.1, -3.5, -0.15, 5)[1:-1]
    return np.array(jaw + brows + nose + eyes + lips)


def write_tiny_model(path: Path) -> Path:
    """Write the model and return its path."""
    x, y = np.linspace(-9, 9, COLUMNS), np.linspace(-14, 14, ROWS)
    plane = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    points, triangles, part = [np.column_stack([plane, depth(*plane.T)])], [grid(x, y, 0)], [np.zeros(len(plane))]
    for k, (cx, cy) in enumerate(EYES.values(), 1):
        u = np.linspace(-1, 1, 9)
        disc = np.stack(np.meshgrid(u + cx, 0.5 * u + cy), -1).reshape(-1, 2)
        triangles.append(grid(u, u, sum(map(len, points))))
        points.append(np.column_stack([disc, depth(*disc.T) + 0.3]))
        part.append(np.full(len(disc), k))
    neutral = np.concatenate(points)
    names = {shape for shapes in SHAPES.values() for shape in shapes} | {*RESTING, *NUISANCE, "cheekPuff"}
    one = {"jawOpen", "mouthPucker", "mouthFunnel", "mouthRollUpper", "mouthRollLower", "mouthShrugLower", *NUISANCE}
    names |= {f"eyeLook{where}" for where in ("In", "Out", "Up", "Down")}
    found = sorted(name + side for name in names for side in ([""] if name in one else ["_L", "_R"]))
    rng = np.random.default_rng(0)
    marks = np.array([np.linalg.norm(neutral[:, :2] - mark, axis=1).argmin() for mark in landmarks()])
    centres = rng.choice(marks[17:], len(found))
    away = np.linalg.norm(neutral[None] - neutral[centres][:, None], axis=2)
    expression = np.exp(-0.5 * (away / 1.2) ** 2)[..., None] * rng.normal(0, 0.5, (len(found), 1, 3))
    below = np.clip((-3.4 - neutral[:, 1]) * 20, 0, 1)
    expression[found.index("jawOpen")] = np.outer(below, [0.0, -2.5, 0.0])
    np.savez(
        path,
        neutral=neutral,
        triangles=np.concatenate(triangles),
        part=np.concatenate(part).astype(np.uint8),
        part_names=np.array(["face", *EYES]),
        expression=expression,
        expression_names=np.array(found),
        identity=rng.normal(0, 0.1, (3, 1, 3)) * np.ones((1, len(neutral), 1)),
        landmarks68=marks,
    )
    return path

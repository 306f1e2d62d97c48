"""The surface of a rendered face: colours and gloss of a morphable model's vertices, hair, and folds of the skin.

Everything is painted by distance from the model's landmarks, in its own units (about one centimetre).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from synthwild.morphable import MorphableModel
from synthwild.people import Action, Array, Identity

UNIT = 7.6  # half a face's width in the model's units
TEXTURES = 48
REDDISH = np.array([1.05, 1.0, 0.9], np.float32)  # how much of each colour a fold takes away
SCLERA = (0.80, 0.84, 0.86)
#: Folds of the skin: how strongly action units deepen them, and their width.
FOLDS: dict[str, tuple[dict[str, float], float]] = {
    "cheek": ({"AU12": 0.9, "AU10": 0.9, "AU6": 0.4, "AU9": 0.5}, 0.17),
    "between brows": ({"AU4": 1.0, "AU9": 0.5}, 0.15),
    "forehead, middle": ({"AU1": 1.0}, 0.13),
    "forehead, sides": ({"AU2": 1.0}, 0.13),
    "under the eyes": ({"AU6": 0.9, "AU7": 0.7, "AU9": 0.3}, 0.15),
    "crow's feet": ({"AU6": 1.0}, 0.10),
    "nose": ({"AU9": 1.0, "AU10": 0.3}, 0.12),
    "below the mouth corners": ({"AU15": 1.0}, 0.16),
    "beside the mouth corners": ({"AU24": 0.9, "AU14": 0.8, "AU12": 0.3}, 0.14),
    "above the chin": ({"AU24": 0.8, "AU15": 0.4, "AU17": 0.8}, 0.20),
    "round the lips": ({"AU23": 0.6, "AU18": 0.4}, 0.10),
}


def bump(distance: Array, width: float | Array) -> Array:
    """A Gaussian of a distance."""
    return np.exp(-0.5 * (distance / width) ** 2)


def to_lines(points: Array, lines: Sequence[Array], *, closed: bool = False) -> Array:
    """Distances ``[N]`` of points ``[N, D]`` to the nearest of several polylines ``[K, D]``."""
    nearest = np.full(len(points), np.inf)
    for line in lines:
        corners = np.vstack([line, line[:1]]) if closed else line
        for start, end in pairwise(corners):
            along = end - start
            share = np.clip((points - start) @ along / max(along @ along, 1e-9), 0, 1)
            nearest = np.minimum(nearest, np.linalg.norm(points - start - share[:, None] * along, axis=1))
    return nearest


def both_sides(*lines: Sequence[Array] | Sequence[Sequence[float]] | Array) -> list[Array]:
    """Polylines of the face's left half (x > 0), and their mirror images."""
    left = [np.array(line, float) for line in lines]
    return [*left, *(line * [-1, 1] for line in left)]


def shifted(point: Array, x: float, y: float) -> Array:
    """The x and y of a landmark, shifted."""
    return np.asarray(point[:2] + np.array([x, y]))


class Field(NamedTuple):
    """Weights in 0..1 of some vertices."""

    at: np.ndarray
    weight: Array


def field(weights: Array) -> Field:
    """The vertices of ``[N]`` weights that are not nearly 0."""
    at = np.flatnonzero(weights > 0.01)
    return Field(at, weights[at])


class Anatomy:
    """Where on a model the parts of a face are.

    Attributes:
        starts, movers, moves: the model's expressions without the vertices that do not move; see `mesh.deform`.
        triangles: those that are drawn; iris and lashes are painted instead.
        fields: lips, lids, lashes, sockets, nostrils, beard, moustache, cheeks, nose, by name.
        creased: vertices of the folds.
        folds: how deep these lie in each fold of `FOLDS` ``[F, C]``.
        scalp: vertices on which hair may grow.
        ears: ``[N]``, 1 where they are.
        noise: ``[N]`` independent numbers of unit variance.
        visage: vertices of the face from chin to forehead, without ears.
        iris: distance of the sclera's vertices from the front of the eye; far away elsewhere.
        depth: how far a vertex lies behind the lips.
        textures: ``[TEXTURES, N]`` smooth random fields of unit variance.
        skins: ``[P, N]`` of real people, see `read_skins`; without them skin is painted.
    """

    def __init__(self, model: MorphableModel, skins: np.ndarray | None = None):
        self.model, self.skins = model, skins
        self.at = model.neutral.astype(np.float64)
        x, y, z = self.at.T
        marks = self.at[model.landmarks68]
        self.marks = marks
        skin = model.of_part("face", "head")
        self.skin, self.front = skin, model.of_part("face") & (z > 3)
        self.mouth = {name: np.flatnonzero(model.of_part(*parts)) for name, parts in _INSIDE.items()}
        hidden = model.of_part("iris_l", "iris_r", "lash_l", "lash_r")
        moved = np.abs(model.expression).max(axis=2) > 1e-3
        self.starts = np.concatenate([[0], np.cumsum(moved.sum(axis=1))])
        self.movers = np.nonzero(moved)[1].astype(np.int32)
        self.moves = model.expression[moved]
        self.triangles = np.ascontiguousarray(model.triangles[~hidden[model.triangles].any(axis=1)].astype(np.int32))
        self.iris = np.full(len(self.at), 9.0)
        for name in ("sclera_l", "sclera_r"):
            eye = model.of_part(name)
            if eye.any():
                flat = self.at[eye, :2]
                self.iris[eye] = np.linalg.norm(flat - (flat.min(0) + flat.max(0)) / 2, axis=1)
        self.scalp = np.flatnonzero(skin & ((y > marks[27, 1] + 3) | (np.abs(x) > 6) | (z < 3)))
        low, high = marks[8, 1] + 4.6, marks[27, 1] + 0.8
        ears = skin & (y > low) & (y < high) & (np.abs(z) < 2.8) & (np.abs(x) > 0.94 * marks[16, 0])
        self.ears = ears.astype(np.float32)
        inner = (y > marks[8, 1] - 0.3) & (y < marks[17:27, 1].max() + 3) & (np.abs(x) < 1.05 * marks[16, 0])
        self.visage = np.flatnonzero(model.of_part("face") & inner)
        self.depth = np.clip(marks[48:].mean(0)[2] - z, 0, None)
        self.fields = {name: field(weights) for name, weights in self._fields(x, y, z, marks).items()}
        folds = np.array([self._fold(name, marks) for name in FOLDS], np.float32)
        self.creased = np.flatnonzero(folds.max(axis=0) > 0.02)
        self.folds = np.ascontiguousarray(folds[:, self.creased])
        rng = np.random.default_rng(5)
        self.noise = rng.normal(size=len(self.at)).astype(np.float32)
        self.textures = np.array([_texture(rng, self.at) for _ in range(TEXTURES)], np.float32)

    def _fields(self, x: Array, y: Array, z: Array, marks: Array) -> dict[str, Array]:
        front, eyes = self.front, (marks[36:42], marks[42:48])
        outside = to_lines(self.at, [marks[48:60]], closed=True)
        lips = np.where(front & (z > 8) & (_inside(self.at[:, :2], marks[48:60, :2])), 1.0, bump(outside, 0.1) * front)
        corners = marks[[48, 54]].mean(0)
        jaw = 1 / (1 + np.exp((y - marks[33, 1] + 0.8 + 0.25 * np.abs(x)) * 4))
        cheek = 1 / (1 + np.exp((y - corners[1] - 0.9 * (np.abs(x) - 3.6)) * 3))
        beard = np.where(np.abs(x) > 3.6, cheek, jaw) * (y > marks[8, 1] - 1.6) * self.skin * (1 - lips)
        sockets = [bump(np.hypot((x - e[0]) / 1.5, (y - e[1] - 0.1) / 0.9), 1.0) for e in (e.mean(0) for e in eyes)]
        nostrils = [bump(np.linalg.norm(self.at - marks[k] - [side, 0, 0], axis=1), 0.33) for k, side in _NOSTRILS]
        return {
            "lips": lips,
            "lids": bump(to_lines(self.at, eyes, closed=True), 0.13) * front,
            "lashes": bump(to_lines(self.at, [eye[:4] for eye in eyes]), 0.13) * front,
            "sockets": np.maximum(*sockets) * front,
            "nostrils": np.maximum(*nostrils) * front,
            "beard": beard,
            "moustache": bump(y - marks[33, 1] + 1.0, 0.45) * (np.abs(x) < 2.6) * front * (1 - lips),
            "cheeks": bump(np.hypot((np.abs(x) - 4) / 1.8, (y - corners[1] - 2.2) / 1.6), 1.0) * front,
            "nose": bump(np.linalg.norm(self.at - marks[30], axis=1), 1.1) * front,
        }

    def _fold(self, name: str, marks: Array) -> Array:
        eye, (wing, corner) = marks[42:48], (marks[35], marks[54])
        brow, chin, outer = marks[17:27, 1].max(), marks[57, 1], marks[45]
        lines = {
            "cheek": both_sides(
                [
                    shifted(wing, 0.35, 0.4),
                    np.array([corner[0] + 0.15, (wing[1] + corner[1]) / 2]),
                    shifted(corner, 0.55, -0.2),
                ]
            ),
            "between brows": both_sides([[0.45, eye[:, 1].mean() + 0.9], [0.6, brow + 0.2]]),
            "forehead, middle": [
                np.array([[-2.2, brow + k], [0, brow + k + 0.1], [2.2, brow + k]]) for k in (0.9, 1.75, 2.6)
            ],
            "forehead, sides": both_sides(
                *([[2.4, brow + k - 0.1], [3.6, brow + k + 0.15], [5.0, brow + k - 0.5]] for k in (0.7, 1.5))
            ),
            "under the eyes": both_sides(eye[[0, 5, 4, 3], :2] + np.array([0.05, -0.55])),
            "crow's feet": both_sides(
                *([shifted(outer, 0.3, 0.1 * k), shifted(outer, 1.2, 0.75 * k)] for k in (-1, 0, 1))
            ),
            "nose": both_sides(*([[0.3, marks[28, 1] - k], [1.0, marks[28, 1] - k + 0.4]] for k in (0, 0.6))),
            "below the mouth corners": both_sides([shifted(corner, 0.1, -0.15), shifted(corner, 0.35, -1.3)]),
            "beside the mouth corners": both_sides([shifted(corner, 0.4, 0.5), shifted(corner, 0.5, -0.5)]),
            "above the chin": [np.array([[-1.4, chin - 0.95], [0, chin - 0.7], [1.4, chin - 0.95]])],
            "round the lips": both_sides(
                *([[k, marks[51, 1] + 0.1], [1.1 * k, marks[51, 1] + 0.6]] for k in (0.3, 0.8, 1.3)),
                *([[k, chin - 0.1], [1.1 * k, chin - 0.5]] for k in (0.3, 0.8, 1.3)),
            ),
        }
        return bump(to_lines(self.at[:, :2], lines[name]), FOLDS[name][1]) * (self.skin & (self.at[:, 2] > 2))

    def grain(self, rng: np.random.Generator) -> Array:
        """Noise ``[N]`` of unit variance, from vertex to vertex."""
        return np.roll(self.noise, rng.integers(len(self.noise)))

    def texture(self, rng: np.random.Generator) -> Array:
        """A new smooth field ``[N]`` of about unit variance."""
        one, other = rng.integers(TEXTURES, size=2)
        angle = rng.uniform(0, 2 * np.pi)
        return np.asarray(np.cos(angle) * self.textures[one] + np.sin(angle) * self.textures[other])


_INSIDE = {"teeth": ("teeth_up", "teeth_lo"), "gums": ("gums", "socket"), "eyes": ("eyesock_l", "eyesock_r")}
_NOSTRILS = ((32, -0.1), (34, 0.1))


def _inside(points: Array, polygon: Array) -> np.ndarray:
    """Which points ``[N, 2]`` lie inside a polygon ``[K, 2]``: a ray to the right crosses it an odd number of times."""
    inside = np.zeros(len(points), bool)
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crossing = (ay > points[:, 1]) != (by > points[:, 1])
        if ay != by:
            inside ^= crossing & (points[:, 0] < ax + (points[:, 1] - ay) * (bx - ax) / (by - ay))
    return inside


def _texture(rng: np.random.Generator, at: Array) -> Array:
    waves = rng.normal(0, 1, (8, 3)) * rng.uniform(0.15, 1.2, (8, 1))
    field = np.sin(at @ waves.T + rng.uniform(0, 2 * np.pi, 8)).mean(1)
    return np.asarray(field / max(float(field.std()), 1e-6))


@dataclass(frozen=True)
class Surface:
    """What a person's head is made of.

    Attributes:
        albedo: linear BGR colours ``[N, 3]``, float32.
        gloss: strength of the highlight ``[N]``.
        lift: how far hair stands off the head ``[N]``.
        creases: how deep the folds are at rest, and how much deeper at full action ``[2, F]``.
    """

    albedo: np.ndarray
    gloss: np.ndarray
    lift: np.ndarray
    creases: Array

    def folded(self, anatomy: Anatomy, action: Action) -> np.ndarray:
        """The albedo with the folds of an action ``[N, 3]``."""
        drives = [max(action[unit] * share for unit, share in drive.items()) for drive, _ in FOLDS.values()]
        depth = self.creases[0] + self.creases[1] * np.clip(drives, 0, 1.1)
        dark = np.minimum(depth.astype(np.float32) @ anatomy.folds, 0.7)
        albedo = self.albedo.copy()
        albedo[anatomy.creased] *= 1 - dark[:, None] * REDDISH
        return albedo


def linear(colour: Array) -> Array:
    """Display colours in 0..255 to linear light in 0..1."""
    return (np.clip(colour, 0, 255) / 255) ** 2


def paint(rng: np.random.Generator, anatomy: Anatomy, who: Identity) -> Surface:
    """Paint a person: skin, brows, lids, lips, beard, hair, eyes and mouth."""
    skin, hair = linear(who.skin), linear(who.hair)
    fields = anatomy.fields
    dark = np.minimum(hair, skin * 0.6)
    albedo = np.empty((len(anatomy.at), 3), np.float32)
    albedo[:] = skin
    if anatomy.skins is None:
        _paint_skin(rng, anatomy, who, albedo, dark)
    else:
        _lay_skin(anatomy.skins[rng.integers(len(anatomy.skins))], anatomy, who, albedo)
    if who.beard:
        _mix(albedo, dark, fields["beard"], who.beard * (1 + 0.25 * anatomy.texture(rng)[fields["beard"].at]))
    _mix(albedo, dark, fields["moustache"], max(who.moustache, 0.8 * who.beard))
    gloss = anatomy.skin * np.float32(rng.uniform(0.0, 0.12))
    gloss[fields["lips"].at] = rng.uniform(0, 0.25)
    grown, lift = _hair(rng, anatomy, who)
    cap = who.hair_style == "cap"
    strands = np.exp((0.25 * anatomy.texture(rng) + 0.15 * anatomy.grain(rng))[grown.at, None])
    _mix(albedo, linear(who.cloth) if cap else hair * strands, grown)
    gloss[grown.at] = rng.uniform(0, 0.08)
    low = anatomy.at[:, 1] < -rng.uniform(10.5, 13.5)
    albedo[low] = linear(who.cloth)
    _eyes_and_mouth(rng, anatomy, who, albedo, gloss)
    rest = np.clip(rng.normal(0, 0.1, len(FOLDS)), 0, None) * (0.4 + 1.6 * who.age)
    return Surface(albedo, gloss, lift, np.stack([rest, rng.uniform(0.1, 0.5, len(FOLDS))]))


def _paint_skin(rng: np.random.Generator, anatomy: Anatomy, who: Identity, albedo: np.ndarray, dark: Array) -> None:
    """Paint blemishes, freckles, lids, lips, lashes and brows onto even skin, in place."""
    skin, hair, fields = linear(who.skin), linear(who.hair), anatomy.fields
    albedo *= (1 + 0.06 * anatomy.texture(rng) + 0.025 * anatomy.grain(rng))[:, None]
    flushed = skin * [0.75, 0.8, 1.05]
    _mix(albedo, flushed, fields["cheeks"], rng.uniform(0, 0.7))
    _mix(albedo, flushed, fields["nose"], rng.uniform(0, 0.6))
    _mix(albedo, skin * 0.5, fields["sockets"], rng.uniform(0, 0.45))
    _mix(albedo, skin * [0.12, 0.12, 0.2], fields["nostrils"], rng.uniform(0.5, 0.9))
    spots = rng.choice(fields["cheeks"].at, len(who.freckles))
    albedo[spots] += rng.uniform(0.3, 0.9, (len(spots), 1)) * (skin * 0.35 - albedo[spots])
    painted = not who.beard and not who.moustache and rng.random() < 0.4
    lips = linear(who.lips) * (np.array([0.8, 0.7, 1.3]) if painted else rng.uniform(0.8, 1.1))
    _mix(albedo, lips, fields["lips"], rng.uniform(0.5, 1.0))
    _mix(albedo, skin * 0.3, fields["lids"], rng.uniform(0, 0.4))
    _mix(albedo, hair * 0.2, fields["lashes"], rng.uniform(*((0.5, 0.95) if painted else (0.2, 0.7))))
    _mix(albedo, dark * rng.uniform(0.4, 0.9), _brows(rng, anatomy, who), rng.uniform(0.5, 0.97))


def _lay_skin(relief: np.ndarray, anatomy: Anatomy, who: Identity, albedo: np.ndarray) -> None:
    """Lay the grey skin of a real person ``[N]``, with its brows, lids and lips, onto skin of another colour."""
    albedo *= relief[:, None]
    red, lips = linear(who.lips) / linear(who.skin), anatomy.fields["lips"]
    albedo[lips.at] *= 1 + lips.weight[:, None] * (red / red.mean() - 1)


def _mix(albedo: np.ndarray, colour: Array, where: Field, strength: float | Array = 1.0) -> None:
    """Blend vertices towards a colour in place."""
    if np.any(strength):
        weight = np.clip(where.weight * strength, 0, 1)[:, None]
        albedo[where.at] += weight * (colour - albedo[where.at])


def _brows(rng: np.random.Generator, anatomy: Anatomy, who: Identity) -> Field:
    """Where the brows are: along the landmarks, higher or lower, thick or thin, straight or arched."""
    marks = anatomy.marks
    low, high = marks[17:27, 1].min() - 1.3, marks[17:27, 1].max() + 1.3
    near = np.flatnonzero(anatomy.front & (anatomy.at[:, 1] > low) & (anatomy.at[:, 1] < high))
    weight = np.zeros(len(near))
    up, thick = rng.normal(0, 0.12), 0.14 + 3.0 * who.brow_thick
    long, arch = rng.uniform(0.85, 1.1), rng.uniform(0.6, 1.3)
    for brow in (marks[17:22, :2], marks[22:27, :2]):
        middle = brow.mean(0)
        line = (brow - middle) * [long, arch] + middle + [0, up]
        taper = 1 - 0.45 * np.clip(np.abs(anatomy.at[near, 0]) / 5.8, 0, 1) ** 2
        weight = np.maximum(weight, np.exp(-((to_lines(anatomy.at[near, :2], [line]) / thick / taper) ** 4)))
    return Field(near, weight)


def _hair(rng: np.random.Generator, anatomy: Anatomy, who: Identity) -> tuple[Field, np.ndarray]:
    """Which vertices are hair, and how far each vertex stands off the head ``[N]``."""
    lift = np.zeros(len(anatomy.at), np.float32)
    if who.hair_style == "bald":
        return Field(np.zeros(0, np.int64), np.zeros(0)), lift
    at = anatomy.scalp
    x, y, z = anatomy.at[at].T
    cap, long = who.hair_style == "cap", who.hair_style in ("long", "curly")
    rough = (0.15 if cap else 0.45) * anatomy.texture(rng)[at]
    drop = {"fringe": rng.uniform(1.2, 2.6), "cap": 1.2}.get(who.hair_style, 0.0)
    top = anatomy.marks[27, 1] - UNIT * who.hairline - drop
    above = y - top + rng.uniform(0.01, 0.05) * x**2 + rough
    down = rng.uniform(-9, -3) if long else rng.uniform(2.5, 4.5)
    beside = np.minimum(np.abs(x) - rng.uniform(6.6, 7.4) + rough, np.minimum(y - down, 6.5 - z))
    behind = np.minimum(1.0 - z + rough, y - min(down, -1.0))
    grown = 1 / (1 + np.exp((-30 if cap else -5) * np.maximum.reduce([above, beside, behind])))
    if not long:
        grown *= 1 - anatomy.ears[at]
    lift[at] = np.clip(2 * grown - 1, 0, 1) * (1 + 0.25 * rough)
    lift *= np.float32(rng.uniform(0.8, 2.0) if who.hair_style == "curly" else rng.uniform(0.1, 1.1))
    return Field(at, grown), lift


def _eyes_and_mouth(
    rng: np.random.Generator, anatomy: Anatomy, who: Identity, albedo: np.ndarray, gloss: np.ndarray
) -> None:
    """Paint eyeballs, teeth, and the inside of the mouth in place."""
    eye = anatomy.iris < 9
    away = anatomy.iris[eye]
    ball = np.tile(np.array(SCLERA) ** 2 * rng.uniform(0.55, 0.95), (len(away), 1))
    radius, soft = rng.uniform(0.60, 0.68), 0.06
    pupil = radius * rng.uniform(0.3, 0.5)
    ring = np.clip(away / radius, 0, 1)[:, None] ** 4
    iris = linear(who.iris) * rng.uniform(0.5, 1.2) * (1 - 0.6 * ring)
    share = 1 / (1 + np.exp(np.clip((away - radius) / soft * 4, -30, 30)))
    ball += share[:, None] * (iris - ball)
    share = 1 / (1 + np.exp(np.clip((away - pupil) / soft * 4, -30, 30)))
    ball += share[:, None] * (0.003 - ball)
    height = anatomy.at[eye, 1] - (anatomy.marks[36:48, 1].mean() if eye.any() else 0)
    albedo[eye] = ball * (1 - 0.5 * np.clip(height / 0.8 + 0.2, 0, 1))[:, None]  # the shadow of the upper lid
    gloss[eye] = 0.35
    white = np.array([0.55, 0.66, 0.70]) * rng.uniform(0.7, 1.15)
    for name, colour, dark in (("teeth", white, 0.4), ("gums", linear(who.lips) * 0.5, 0.75)):
        inside = anatomy.mouth[name]
        albedo[inside] = colour * np.exp(-anatomy.depth[inside, None] * dark * rng.uniform(0.7, 1.2))
    albedo[anatomy.mouth["eyes"]] = linear(who.skin) * [0.25, 0.25, 0.4]

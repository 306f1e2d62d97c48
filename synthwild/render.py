"""Renders people from a morphable model: the same identities, actions and poses as drawn faces, as lit meshes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from preprocessing.align import similarity
from synthwild.head import HeadPainter
from synthwild.mesh import blend, bounds, deform, normals, paste, project, raster, shade
from synthwild.morphable import read_model, read_skins
from synthwild.muscles import Muscles, random_muscles, visible_intensities
from synthwild.people import Action, Array, Identity, Image, Landmarks, Pose, random_identity
from synthwild.scene import Draw
from synthwild.skin import UNIT, Anatomy, Surface, paint

PIVOT = np.array([0.0, 3.7, 4.4])  # the point about which a head turns
FINER = 2  # pixels of the rasteriser per pixel of the picture, each way
FLIP = np.diag([1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Light:
    """A key light, a fill light and ambient light; see `synthwild.mesh.shade`. Colours are BGR."""

    key: Array
    tint: Array
    fill: Array
    ambient: float
    sharpness: int


def random_light(rng: np.random.Generator) -> Light:
    """Draw the light of a place."""
    side, up = rng.normal(0, 0.7), rng.normal(0.35, 0.4)
    key = np.array([np.sin(side) * np.cos(up), np.sin(up), np.cos(side) * np.cos(up)])
    fill = rng.normal(size=3)
    warm = rng.normal(0, 0.08)
    ambient = rng.uniform(0.25, 0.85)
    tint = (1.15 - ambient) * rng.uniform(0.75, 1.15) * np.array([1 - warm, 1.0, 1 + warm])
    return Light(key, tint, fill / np.linalg.norm(fill) * rng.uniform(0, 0.25), ambient, int(rng.integers(3, 6)))


@dataclass(frozen=True)
class RenderedFace:
    """One person of a morphable model.

    Attributes:
        anatomy: of the model.
        who: the identity; its colours, hair, beard and glasses are used, its proportions are the model's.
        bones: the neutral mesh of the person ``[N, 3]``, float32.
        surface: colours.
        muscles: how the face moves.
        light: of the place.
        distance: of the camera, in the model's units.
    """

    anatomy: Anatomy
    who: Identity
    bones: np.ndarray
    surface: Surface
    muscles: Muscles
    light: Light
    distance: float

    def under(self, light: Light) -> "RenderedFace":
        """The same person in other light."""
        return replace(self, light=light)

    def moved(self, action: Action, extra: Mapping[str, float] | None = None) -> tuple[np.ndarray, Array]:
        """The mesh of an action ``[N, 3]``, and the intensities ``[12]`` that it shows."""
        of = self.anatomy
        weights = self.muscles.weights(action, extra)
        points = deform(self.bones, of.starts, of.movers, of.moves, weights.astype(np.float32))
        return points, visible_intensities(action, weights, self.muscles.names, points[of.model.landmarks68])

    def draw(self, canvas: Image, action: Action, pose: Pose) -> Landmarks:
        """Draw the face onto a BGR canvas ``[H, W, 3]`` in place and return its landmarks."""
        return self.draw_mesh(canvas, self.moved(action)[0], action, pose)

    def draw_mesh(self, canvas: Image, points: np.ndarray, action: Action, pose: Pose) -> Landmarks:
        """Draw the mesh ``points`` of an action; see :meth:`draw`."""
        painter = HeadPainter(canvas, self.who, action, pose)
        painter.body()
        painter.back_hair()
        turn = rotation(pose)
        normal = normals(points, self.anatomy.triangles)
        at = self.project(points + normal * self.surface.lift[:, None], pose)
        light, albedo = self.light, self.surface.folded(self.anatomy, action)
        facing = normal @ turn.T.astype(np.float32)
        colours = shade(
            albedo, facing, light.key, light.tint, light.fill, light.ambient, self.surface.gloss, light.sharpness
        )
        composite(canvas, at, colours, self.anatomy.triangles)
        marks = self.project(points[self.anatomy.model.landmarks68], pose)[:, :2]
        if self.who.glasses:
            self.wear_glasses(canvas, points, pose)
        x0, x1, y0, y1 = bounds(at[self.anatomy.visage])
        return Landmarks(five(marks), np.array([x0, y0, x1, y1]))

    def project(self, points: np.ndarray, pose: Pose) -> np.ndarray:
        """Pixels x, y, and depth, of points ``[n, 3]`` of the mesh."""
        turn = rotation(pose) / UNIT
        matrix = np.column_stack([turn, -turn @ PIVOT])
        return project(points, matrix, self.distance / UNIT, np.array([pose.x, pose.y, pose.scale]))

    def aligned_pose(self, points: np.ndarray, yaw: float, pitch: float, template: Array) -> Pose:
        """The pose that brings the five landmarks of a mesh to a template ``[5, 2]`` in pixels as nearly as it can."""
        flat = Pose(0.0, 0.0, 1.0, yaw, pitch)
        seen = five(self.project(points[self.anatomy.model.landmarks68], flat)[:, :2]).astype(float)
        (cosine, _, x), (sine, _, y) = similarity(seen, template)
        return Pose(float(x), float(y), float(np.hypot(cosine, sine)), yaw, pitch, float(np.arctan2(sine, cosine)))

    def wear_glasses(self, canvas: Image, points: np.ndarray, pose: Pose) -> None:
        """Draw glasses: two rims, a bridge and temples."""
        marks = points[self.anatomy.model.landmarks68].astype(float)
        angle = np.linspace(0, 2 * np.pi, 25)
        power = 1.0 if self.who.glasses == "round" else 0.5
        across = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
        along = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
        front = marks[27, 2] + 0.3
        lines = []
        for eye, ear, side in ((marks[36:42], marks[0], -1), (marks[42:48], marks[16], 1)):
            x, y = eye[:, 0].mean() + 0.15 * side, eye[:, 1].mean() - 0.15
            lines.append(np.stack([x + 2.35 * across, y + 1.85 * along, front - 0.08 * (across + side) ** 2], 1))
            lines.append(np.array([[x + 2.35 * side, y + 0.4, front - 0.4], [ear[0], y + 0.6, ear[2]]]))
        lines.append(np.array([lines[0][0], [0, marks[27, 1] + 0.2, front + 0.2], lines[2][12]]))
        colour, thick = (self.who.hair * 0.5).tolist(), max(1, round(0.03 * pose.scale))
        for line in lines:
            pixels = np.rint(self.project(line, pose)[:, :2] * 16).astype(np.int32)
            cv2.polylines(canvas, [pixels], False, colour, thick, cv2.LINE_AA, 4)


def rotation(pose: Pose) -> Array:
    """The turn of a pose ``[3, 3]`` for coordinates with y upwards; the same as that of drawn heads."""
    cy, sy, cp, sp = np.cos(pose.yaw), np.sin(pose.yaw), np.cos(pose.pitch), np.sin(pose.pitch)
    cr, sr = np.cos(pose.roll), np.sin(pose.roll)
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(FLIP @ roll @ pitch @ yaw @ FLIP)


def five(marks: np.ndarray) -> Array:
    """Eyes, nose tip and mouth corners ``[5, 2]`` of 68 landmarks."""
    return np.stack([marks[36:42].mean(0), marks[42:48].mean(0), marks[30], marks[48], marks[54]]).astype(float)


def composite(canvas: Image, at: np.ndarray, colours: np.ndarray, triangles: np.ndarray) -> None:
    """Rasterise a mesh with antialiasing onto the part of a canvas that it covers, in place.

    Args:
        canvas: BGR ``[H, W, 3]``.
        at: pixels and depths of the vertices ``[N, 3]``.
        colours: ``[N, 3]`` in 0..1.
        triangles: ``[T, 3]``.
    """
    height, width = canvas.shape[:2]
    x0, x1, y0, y1 = bounds(at)
    left, right, top, bottom = max(int(x0), 0), min(int(x1) + 2, width), max(int(y0), 0), min(int(y1) + 2, height)
    if left >= right or top >= bottom:
        return
    fine = at.copy()
    fine[:, 0] = (at[:, 0] - left + 0.5) * FINER - 0.5
    fine[:, 1] = (at[:, 1] - top + 0.5) * FINER - 0.5
    drawn = raster(fine, colours, triangles, (bottom - top) * FINER, (right - left) * FINER)
    paste(canvas[top:bottom, left:right], drawn, FINER)


def natural(rng: np.random.Generator, who: Identity) -> Identity:
    """An identity with less colourful skin than drawn people have, and mostly dark hair on dark skin."""
    grey = who.skin.mean()
    skin = who.skin + rng.uniform(0.0, 0.3) * (grey - who.skin)
    hair = who.hair * min(1.0, 60 / who.hair.mean()) if grey < 150 and rng.random() < 0.85 else who.hair
    return replace(who, skin=skin, hair=hair, lips=who.lips + 0.25 * (who.lips.mean() - who.lips))


@cache
def anatomy_of(model: Path, skins: Path | None = None) -> Anatomy:
    """The anatomy of the model in a file, read once, with the skins of real people in another."""
    read = read_model(model)
    return Anatomy(read, None if skins is None else read_skins(skins, len(read.neutral)))


def rendered_figure(model: Path, skins: Path | None, rng: np.random.Generator) -> tuple[Identity, Draw]:
    """A random person of the model in a file, for `synthwild.scene.Actor`."""
    face = random_face(rng, anatomy_of(model, skins))
    return face.who, face.draw


def random_face(rng: np.random.Generator, anatomy: Anatomy) -> RenderedFace:
    """Draw a person: identity, bones, skin, the way the face moves, and the light."""
    model, who = anatomy.model, natural(rng, random_identity(rng))
    spread = rng.uniform(0.4, 1.1)
    weights = (rng.normal(0, spread, len(model.identity))).astype(np.float32)
    bones = blend(model.neutral, model.identity, weights)
    return RenderedFace(
        anatomy,
        who,
        bones,
        paint(rng, anatomy, who),
        random_muscles(rng, model),
        random_light(rng),
        float(rng.uniform(40, 160)),
    )

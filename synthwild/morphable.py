"""A morphable face model: its file M.npz, and the command that makes it from a clone of ICT-FaceKit (MIT licence).

`python synthwild/morphable.py --ict-facekit DIR --out M.npz`; DIR is the clone or its folder `FaceXModel`. The file
holds (x to the picture's right, y up, z towards the camera; about one centimetre per unit):

* `neutral` [N, 3], `triangles` [T, 3] (counter-clockwise from outside), `uv` [N, 2];
* `part` [N] and `part_names`: which part of the head a vertex belongs to; `source_vertex` [N]: its original number;
* `expression` [E, N, 3] and `expression_names`: differences from the neutral face at full strength;
* `identity` [I, N, 3]: differences of one standard deviation;
* `landmarks68` [68]: vertices of the Multi-PIE landmarks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import tyro

from checkpoints.artifact import atomic_file, read_json
from checkpoints.errors import UserError, guarded
from checkpoints.reading import NPY_FAULTS

NEUTRAL = "generic_neutral_mesh"
#: First vertex of each part in the topology of ICT-FaceKit; the parts named "" are never visible.
PARTS = {
    "face": 0,
    "head": 9409,
    "socket": 11248,
    "eyesock_l": 13294,
    "eyesock_r": 13678,
    "gums": 14062,
    "teeth_up": 17039,
    "teeth_lo": 19245,
    "sclera_l": 21451,
    "iris_l": 22221,
    "sclera_r": 23021,
    "iris_r": 23791,
    "": 24591,
    "lash_l": 25351,
    "lash_r": 26035,
}
VERTICES = 26719
BACK = -4.7  # what lies behind is never seen
BRIGHTEST = 3.0  # highlights of a portrait, as a multiple of its skin


@dataclass(frozen=True)
class MorphableModel:
    """The arrays of the file, float32 and int64; see the module."""

    neutral: np.ndarray
    triangles: np.ndarray
    part: np.ndarray
    part_names: tuple[str, ...]
    expression: np.ndarray
    expression_names: tuple[str, ...]
    identity: np.ndarray
    landmarks68: np.ndarray

    def of_part(self, *names: str) -> np.ndarray:
        """`[N]` bool: the vertices of the named parts."""
        return np.isin(self.part, [self.part_names.index(name) for name in names if name in self.part_names])


def read_model(path: Path) -> MorphableModel:
    """Read M.npz.

    Raises:
        UserError: It is missing, no such file, lacks an array, or its arrays do not fit each other.
    """
    remake = "make it with synthwild/morphable.py"
    arrays = _read_arrays(path, [*MorphableModel.__dataclass_fields__], "a face model", remake)
    for name, array in arrays.items():
        kinds = "U" if name.endswith("_names") else "iu" if name in ("triangles", "landmarks68") else "iuf"
        if not array.ndim or array.dtype.kind not in kinds:
            raise UserError(f"{path}: {name} is {array.dtype} {list(array.shape)}, which is not a face model: {remake}")
    n, names = len(arrays["neutral"]), tuple(str(name) for name in arrays["expression_names"])
    shapes = {
        "neutral": (n, 3),
        "triangles": (len(arrays["triangles"]), 3),
        "part": (n,),
        "expression": (len(names), n, 3),
        "identity": (len(arrays["identity"]), n, 3),
        "landmarks68": (68,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise UserError(f"{path}: {name} has the shape {arrays[name].shape}, expected {shape}: {remake}")
    for name in ("triangles", "landmarks68"):
        if arrays[name].size and not 0 <= int(arrays[name].min()) <= int(arrays[name].max()) < n:
            raise UserError(f"{path}: {name} names a vertex beyond the {n} of neutral: {remake}")
    for name in ("neutral", "expression", "identity"):
        if not np.isfinite(arrays[name]).all():
            raise UserError(f"{path}: {name} holds numbers that are not finite: {remake}")
    return MorphableModel(
        neutral=arrays["neutral"].astype(np.float32),
        triangles=arrays["triangles"].astype(np.int64),
        part=arrays["part"],
        part_names=tuple(str(name) for name in arrays["part_names"]),
        expression=arrays["expression"].astype(np.float32),
        expression_names=names,
        identity=arrays["identity"].astype(np.float32),
        landmarks68=arrays["landmarks68"].astype(np.int64),
    )


def read_skins(path: Path, vertices: int) -> np.ndarray:
    """Read the skins of real people from an .npz file, such as one that was fitted to portraits.

    The file holds `keys` [P], names; `c` [P, N], how much light each vertex of the model reflects (grey, linear);
    `skin` [P], what the person's skin reflects as a whole; and, if it likes, `held`: names of people to leave out.

    Returns:
        Float32 [P, N]: the light of each vertex as a share of the person's skin, of those who are not held out.

    Raises:
        UserError: It cannot be read, lacks an array, belongs to another model, or leaves nobody.
    """
    advice = "docs/labels.md says what it holds"
    arrays = _read_arrays(path, ["keys", "c", "skin"], "a file of skins", advice, ["held"])
    people, found = len(arrays["keys"]), arrays["c"]
    if found.shape != (people, vertices) or arrays["skin"].shape != (people,):
        shapes = f"c {list(found.shape)} and skin {list(arrays['skin'].shape)}"
        raise UserError(f"{path}: {shapes} do not fit {people} people and the model's {vertices} vertices: {advice}")
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = found.astype(np.float32) / arrays["skin"].astype(np.float32)[:, None]
    if not np.isfinite(shares).all() or (shares < 0).any():
        raise UserError(f"{path}: c or skin holds numbers that are not positive and finite: {advice}")
    kept = ~np.isin(arrays["keys"], arrays.get("held", []))
    if not kept.any():
        raise UserError(f"{path} holds nobody who is not held out: {advice}")
    return np.clip(shares[kept], 0, BRIGHTEST)


def _read_arrays(
    path: Path, names: Sequence[str], what: str, advice: str, more: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Named arrays of an .npz file; those in `more` may be missing."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in [*names, *more] if name in file.files}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {advice}") from None
    except (*NPY_FAULTS, AttributeError) as error:
        raise UserError(f"{path} cannot be read as {what} ({error}): {advice}") from None
    if missing := [name for name in names if name not in arrays]:
        raise UserError(f"{path} is not {what}, it lacks {', '.join(missing)}: {advice}")
    return arrays


def read_vertices(path: Path) -> np.ndarray:
    """The vertices [N, 3] of a Wavefront OBJ file.

    Raises:
        UserError: It cannot be read or does not have ICT-FaceKit's number of vertices.
    """
    lines = [line.split()[1:4] for line in _lines(path) if line.startswith("v ")]
    try:
        vertices = np.array(lines, np.float32).reshape(-1, 3)
    except ValueError:
        raise UserError(f"{path}: a line that begins with v does not hold three numbers") from None
    if len(vertices) != VERTICES:
        raise UserError(f"{path} has {len(vertices)} vertices; ICT-FaceKit's meshes have {VERTICES}")
    return vertices


def read_faces(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Triangles [T, 3] (polygons are divided) and texture coordinates [N, 2] of a Wavefront OBJ file."""
    coordinates, triangles, uv = [], [], np.zeros((VERTICES, 2), np.float32)
    for number, line in enumerate(_lines(path), 1):
        kind, *fields = line.split() or [""]
        try:
            if kind == "vt":
                coordinates.append([float(field) for field in fields[:2]])
            elif kind == "f":
                corners = [[int(index) - 1 for index in field.split("/")[:2]] for field in fields]
                for corner in corners:
                    uv[corner[0]] = coordinates[corner[1]]
                first = corners[0][0]
                triangles += [[first, b[0], c[0]] for b, c in pairwise(corners[1:])]
        except (ValueError, IndexError):
            raise UserError(f"{path}, line {number}: cannot read '{line.strip()}'") from None
    return np.array(triangles, np.int64).reshape(-1, 3), uv


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): give a complete clone of ICT-FaceKit") from None


def convert(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of M.npz from ICT-FaceKit's meshes.

    Raises:
        UserError: The folder lacks a file, or a file is damaged.
    """
    if (folder / "FaceXModel").is_dir():
        folder = folder / "FaceXModel"
    neutral = read_vertices(folder / f"{NEUTRAL}.obj")
    triangles, uv = read_faces(folder / f"{NEUTRAL}.obj")
    part = np.searchsorted([*PARTS.values()], np.arange(VERTICES), side="right") - 1
    seen = (np.array([*PARTS])[part] != "") & (neutral[:, 2] > BACK)
    triangles = triangles[seen[triangles].all(axis=1)]
    kept = np.unique(triangles)
    place = np.zeros(VERTICES, np.int64)
    place[kept] = np.arange(len(kept))
    names = sorted(path.stem for path in folder.glob("*.obj") if path.stem != NEUTRAL)
    people = [name for name in names if name.startswith("identity")]
    shapes = [name for name in names if not name.startswith("identity")]
    if not people or not shapes:
        raise UserError(f"{folder} holds no meshes of identities or of expressions: give a complete clone")
    deltas = {name: read_vertices(folder / f"{name}.obj")[kept] - neutral[kept] for name in names}
    landmarks = read_json(folder / "vertex_indices.json")["idx_to_landmark_verts"]
    return {
        "neutral": neutral[kept],
        "triangles": place[triangles].astype(np.uint16),
        "part": part[kept].astype(np.uint8),
        "part_names": np.array([*PARTS]),
        "uv": uv[kept].astype(np.float16),
        "source_vertex": kept.astype(np.uint16),
        "expression_names": np.array(shapes),
        "expression": np.stack([deltas[name] for name in shapes]).astype(np.float16),
        "identity": np.stack([deltas[name] for name in people]).astype(np.float16),
        "landmarks68": place[np.array(landmarks)].astype(np.uint16),
    }


@dataclass
class Config:
    """Make the file of a morphable face model from a clone of ICT-FaceKit."""

    ict_facekit: Path
    """The clone (https://github.com/ICT-VGL/ICT-FaceKit), or its folder FaceXModel."""
    out: Path
    """The file to write, such as M.npz."""


def main() -> None:
    """Read the command line and write the model."""
    config = tyro.cli(Config, description=__doc__)
    arrays = convert(config.ict_facekit)
    with atomic_file(config.out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    vertices, shapes, people = len(arrays["neutral"]), len(arrays["expression"]), len(arrays["identity"])
    print(f"{config.out}: {vertices} vertices, {shapes} shapes of expression, {people} of identity")


if __name__ == "__main__":
    guarded(main)

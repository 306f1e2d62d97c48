"""How does the bundle compare with free tools that name expressions, on labelled pictures of faces?

    python benchmarks/peers.py --data FOLDER... --environments FOLDER --out benchmarks/results/peers.json

Peers are `fer` (PyPI) and the expression nets of `@vladmandic/face-api` and `@vladmandic/human` (npm; tfjs with its
wasm backend). Each is installed under `--environments` when it is missing; one that cannot be is reported as such.

All see the same faces, found by this project's detector: the bundle those it aligns, peers a square around the
detector's box, the same with 10 % of room on each side, and the aligned face. Every answer is free: the most probable
of all classes that a net has, wrong if the set does not have it. A face that was not found is wrong for all.

Besides, all nets are calibrated alike on the unlabelled faces of the set. `declared`: their mean answer is taken for
their prior, and replaced with the declared one. `em`: the prior that they state, or that of the data they were trained
on, is replaced with the one that expectation-maximisation finds; face-api does not say what it was trained on.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

import preprocessing.run
from checkpoints.artifact import read_json, write_json
from checkpoints.errors import UserError, guarded
from preprocessing.align import decode_jpeg
from preprocessing.faces import PICTURE_SUFFIXES, FacesStore, Sequence
from preprocessing.pictures import read_picture
from starter_scores import muxspace, unique_votes, with_intervals
from wildaffect.inference.models import DEFAULT
from wildaffect.inference.predictor import Predictor
from wildaffect.tasks import EXPR, EXPRESSIONS, Task
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.priors import estimated_prior, named_prior, under_prior

HERE = Path(__file__).parent
SIDE = 112
PREFIX = "face"
CROPS: dict[str, float | None] = {"box": 0.0, "box with room": 0.1, "aligned": None}
"""Room on each side of the box, as a share of its side; None: the aligned face of the store."""
PEERS = ("fer", "@vladmandic/face-api", "@vladmandic/human")
# `fer` asks for both TensorFlow and PyTorch; these are what its net needs. OpenCV 5 has no Haar cascades.
PYTHON = ("tensorflow-cpu", "opencv-python-headless<5", "setuptools<81", "requests", "pillow")
NODE = ("@tensorflow/tfjs", "@tensorflow/tfjs-backend-wasm")

FER2013 = {"Neutral": 4965, "Anger": 3995, "Disgust": 436, "Fear": 4097, "Happiness": 7215, "Sadness": 4830}
FER2013 |= {"Surprise": 3171}
"""Training faces of FER2013 by class. Both `fer` and human have the net of github.com/oarriaga/face_classification."""


@dataclass(frozen=True)
class Peers:
    """Compare a bundle with other tools that name expressions."""

    data: tuple[Path, ...]
    """Folders of labelled faces: one folder of pictures per class, or FER+ and muxspace as `make starter` reads them
    (`ferplus/validation.parquet`, `muxspace/` and `manifest.csv`)."""
    environments: Path
    """Folder outside the repository where peers are, or are to be, installed."""
    bundle: Path = DEFAULT
    """The bundle, or heads, to compare."""
    prior: str = "uniform"
    """The declared prior: `uniform`, or a JSON file of shares by expression."""
    workers: int = 2
    """Number of processes for face detection."""
    out: Path | None = None
    """Where to record the results as JSON."""


@dataclass(frozen=True)
class Faces:
    """Labelled pictures `pictures` with classes `truth` `[N]`, indices into `EXPRESSIONS`."""

    name: str
    pictures: list[bytes]
    truth: np.ndarray


def main(config: Peers) -> dict[str, Any]:
    """Score the bundle and every peer on every set, and return what is recorded.

    Raises:
        UserError: There are no labelled faces, or the bundle cannot be loaded.
    """
    sets = [faces for folder in config.data for faces in labelled_faces(folder)]
    missing = {peer: reason for peer in PEERS if (reason := install(peer, config.environments))}
    predictor = Predictor(config.bundle, device="cpu")
    result: dict[str, Any] = {"not_installed": missing, "prior": config.prior, "sets": {}}
    for faces in sets:
        with tempfile.TemporaryDirectory() as folder:
            store, rows = find_faces(faces, predictor, Path(folder), config.workers)
            found = rows >= 0
            answers = {"wildaffect (aligned)": predict_faces(predictor, store, rows, EXPR)}
            for crop, room in CROPS.items():
                crops = cut_crops(faces, store, rows, room)
                for peer in PEERS:
                    if peer in missing:
                        continue
                    values = np.zeros((len(rows), len(EXPRESSIONS)))
                    values[found] = ask(peer, config.environments, crops, Path(folder))
                    answers[f"{peer} ({crop})"] = values
        part = {
            name: compare(values, faces.truth, config.prior, trained_prior(name, predictor))
            for name, values in answers.items()
        }
        result["sets"][faces.name] = {"faces": len(rows), "found": float(found.mean()), "scores": part}
        print_table(faces.name, result["sets"][faces.name])
        if config.out:
            write_json(config.out, result)
    for peer, reason in missing.items():
        print(f"{peer} is not compared: {reason}")
    return result


def labelled_faces(folder: Path) -> list[Faces]:
    """The labelled sets of a folder.

    Raises:
        UserError: It is laid out in no known way, or has a class that is not an expression.
    """
    if (folder / "manifest.csv").exists() and (folder / "ferplus" / "validation.parquet").exists():
        return [ferplus_validation(folder), muxspace_val(folder)]
    pictures, truth = [], []
    for kind in sorted(path for path in folder.glob("*") if path.is_dir()):
        number = class_of(kind)
        for path in sorted(kind.rglob("*")) if number is not None else ():
            if path.suffix.lower() in PICTURE_SUFFIXES:
                pictures.append(path.read_bytes())
                truth.append(number)
    if not pictures:
        raise UserError(f"{folder} holds no labelled faces: expected a folder of pictures for each class")
    return [Faces(folder.name, pictures, np.array(truth))]


def class_of(folder: Path) -> int | None:
    """The class that a folder of pictures is named for; None for `unknown`.

    Raises:
        UserError: It is named for none.
    """
    try:
        return ClassMap()(folder.name, folder)
    except UserError as error:
        known = ", ".join(EXPRESSIONS)
        raise UserError(
            f"{folder}: the name is no expression: rename the folder to one of {known}, or unknown"
        ) from error


def ferplus_validation(folder: Path) -> Faces:
    """The faces of FER+ `validation` that have a unique plurality."""
    table = pq.read_table(folder / "ferplus" / "validation.parquet")
    ids = [f"{row:06}" for row in range(table.num_rows)]
    votes = table.drop_columns(["image"]).append_column("video", pa.array(ids))
    with tempfile.TemporaryDirectory() as place:
        pq.write_table(votes.append_column("split", pa.array(["validation"] * len(ids))), Path(place) / "votes.parquet")
        truth = unique_votes(Path(place) / "votes.parquet", split="validation")
    images = table["image"].to_pylist()
    return Faces("FER+ validation", [images[int(id)]["bytes"] for id in truth], np.array([*truth.values()]))


def muxspace_val(folder: Path) -> Faces:
    """The faces of muxspace `val`."""
    truth = muxspace(folder, "val")
    files = {path.stem: path for path in (folder / "muxspace").iterdir()}
    return Faces("muxspace val", [files[id].read_bytes() for id in truth], np.array([*truth.values()]))


def find_faces(faces: Faces, predictor: Predictor, folder: Path, workers: int) -> tuple[FacesStore, np.ndarray]:
    """Faces store of a set, and the row of each picture's main face `[N]`, -1 where none was found.

    Raises:
        UserError: None was found in any of them.
    """
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, content in enumerate(faces.pictures):
        # Numbers alone would be frames of one video. Pictures are read by their content, not by the ending.
        (pictures / f"{PREFIX}{number:06}.png").write_bytes(content)
    framing = predictor.models.framing.for_alignment.name
    settings = preprocessing.run.Config([str(pictures)], folder / "store", framing=framing, workers=workers)
    preprocessing.run.run(settings)
    store = FacesStore(folder / "store")
    rows = np.full(len(faces.pictures), -1)
    for sequence in store.sequences():
        if not sequence.subject and store.valid[sequence.start]:
            rows[int(sequence.video.removeprefix(PREFIX))] = sequence.start
    if not (rows >= 0).any():
        raise UserError(f"{faces.name}: no face was found in any of {len(rows)} pictures")
    return store, rows


def predict_faces(predictor: Predictor, store: FacesStore, rows: np.ndarray, task: Task) -> np.ndarray:
    """Values `[N, out_dim]` of one task by the bundle; zeros where no face was found."""
    whole = predictor.features(store, Sequence("", "", 0, len(store), 1))  # in batches; pictures stay apart below
    values = np.zeros((len(rows), task.out_dim))
    for number in np.flatnonzero(rows >= 0).tolist():
        alone = slice(rows[number], rows[number] + 1)
        features = {name: item[alone] for name, item in whole.items()}
        values[number] = predictor.models.predict(features, np.ones(1, bool), 1.0)[task.name][0]
    return values


def cut_crops(faces: Faces, store: FacesStore, rows: np.ndarray, room: float | None) -> np.ndarray:
    """Faces that were found, RGB uint8 `[M, SIDE, SIDE, 3]`."""
    if room is None:
        aligned = (decode_jpeg(store.jpeg(row) or b"") for row in rows[rows >= 0].tolist())
        return np.stack([cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for face in aligned])
    shards = [store.path / "data" / shard["name"] for shard in store.header["shards"]]
    boxes = pa.concat_tables(pq.read_table(path, columns=["box"], partitioning=None) for path in shards)["box"]
    numbers = np.flatnonzero(rows >= 0).tolist()
    return np.stack([square(read_picture(faces.pictures[n]), boxes[int(rows[n])].as_py(), room) for n in numbers])


def square(picture: np.ndarray, box: list[float], room: float) -> np.ndarray:
    """Cut the square around the centre of a box, as wide as its longer side with `room` on each side.

    Args:
        picture: RGB uint8 `[H, W, 3]`; beyond its edges they are repeated.
        box: x1, y1, x2, y2 in pixels.
        room: Share of the side.

    Returns:
        RGB uint8 `[SIDE, SIDE, 3]`.
    """
    x1, y1, x2, y2 = box
    half = max(x2 - x1, y2 - y1) * (0.5 + room)
    left, top = round((x1 + x2) / 2 - half), round((y1 + y2) / 2 - half)
    side = max(round(2 * half), 1)
    down = np.clip(np.arange(top, top + side), 0, picture.shape[0] - 1)
    across = np.clip(np.arange(left, left + side), 0, picture.shape[1] - 1)
    method = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
    return cv2.resize(picture[down][:, across], (SIDE, SIDE), interpolation=method)


def install(peer: str, environments: Path) -> str:
    """Install a peer into its own environment, unless it is there.

    Returns:
        Why it cannot be; empty if it is installed.
    """
    home = home_of(peer, environments)
    home.mkdir(parents=True, exist_ok=True)
    python = home / "bin" / "python"
    if peer == "fer":
        ready, tool = [*home.glob("lib/*/site-packages/fer")], "uv"
        commands = [
            ["venv", "--allow-existing", "--python", "3.11", str(home)],
            ["pip", "install", "--python", str(python), *PYTHON],
            ["pip", "install", "--python", str(python), "--no-deps", "fer"],
        ]
    else:
        ready, tool = [*home.glob(f"node_modules/{peer}/package.json")], "npm"
        commands = [["install", "--prefix", str(home), "--no-audit", "--no-fund", "--ignore-scripts", peer, *NODE]]
    if ready:
        return ""
    program = shutil.which(tool) or shutil.which(tool, path=str(Path(sys.executable).parent))
    if program is None:
        return f"{tool} is not installed"
    for command in commands:
        done = subprocess.run([program, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{tool} {command[0]}: {last_line(done.stderr)}"
    return ""


def ask(peer: str, environments: Path, crops: np.ndarray, folder: Path) -> np.ndarray:
    """Probabilities of the expressions `[M, 8]` by a peer, for crops `[M, SIDE, SIDE, 3]`.

    Raises:
        UserError: It failed.
    """
    given, answers, home = folder / "crops.rgb", folder / "answers.json", home_of(peer, environments)
    crops.tofile(given)
    arguments = [str(given), str(SIDE), str(answers)]
    if peer == "fer":
        command = [str(home / "bin" / "python"), str(HERE / "peers_fer.py"), *arguments]
    else:
        command = ["node", str(HERE / "peers_node.cjs"), *arguments, peer, str(home)]
    answers.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not answers.exists():
        raise UserError(f"{peer} failed: {last_line(done.stderr)}: delete {home} to install it again")
    return in_our_order(peer, read_json(answers), len(crops))


def in_our_order(peer: str, answers: Any, count: int) -> np.ndarray:
    """A peer's answers as probabilities `[count, 8]` in the order of `EXPRESSIONS`; 0 for a class that it lacks.

    Raises:
        UserError: They have another shape, are not probabilities, or name a class that is not an expression.
    """
    known = [ClassMap()(name, peer) for name in answers["classes"]]
    classes = [number for number in known if number is not None]
    values = np.array(answers["probabilities"], np.float64)
    if (
        values.shape != (count, len(classes))
        or len(known) > len(classes)
        or not np.allclose(values.sum(1), 1, atol=1e-2)
    ):
        raise UserError(f"{peer}: expected probabilities of {len(known)} expressions for {count} faces")
    ordered = np.zeros((count, len(EXPRESSIONS)))
    ordered[:, classes] = values
    return ordered


def home_of(peer: str, environments: Path) -> Path:
    """The folder of a peer's own environment."""
    return environments / Path(peer).name


def last_line(text: str) -> str:
    """The last line of a program's messages."""
    return (text.strip().splitlines() or ["it gave no reason"])[-1]


def trained_prior(tool: str, predictor: Predictor) -> np.ndarray | None:
    """The prior `[8]` under which a net answers, None if it does not say."""
    if tool.startswith("wildaffect"):
        return next((np.array(head.prior.stated) for head in predictor.models.heads if head.prior), None)
    if tool.startswith("@vladmandic/face-api"):
        return None
    counts = np.array([FER2013.get(name, 0) for name in EXPRESSIONS], np.float64)
    return counts / counts.sum()


def compare(values: np.ndarray, truth: np.ndarray, prior: str, trained: np.ndarray | None) -> dict[str, Any]:
    """Scores of a net as it answers, under the declared prior, and, if `trained` is known, under the estimated one.

    Args:
        values: Probabilities `[N, 8]`; zeros where no face was found.
        truth: Classes `[N]`.
        prior: See :attr:`Peers.prior`.
        trained: The prior `[8]` under which the net answers.
    """
    found = values.sum(1) > 0
    mean = values[found].mean(0)
    kinds = {"free": values, "declared": under_prior(values, mean, named_prior(prior, mean, mean))}
    if trained is not None:
        kinds["em"] = under_prior(values, trained, estimated_prior(values[found], trained))
    # Macro F1 is over every class that the set has.
    return {name: with_intervals(np.where(found, part.argmax(1), -1), truth, 1) for name, part in kinds.items()}


def print_table(name: str, part: dict[str, Any]) -> None:
    """Print the scores on one set."""
    print(f"\n{name}: {part['faces']:,} faces, {part['found']:.1%} found")
    for tool, kinds in part["scores"].items():
        for kind, scores in kinds.items():
            (low, high), (lower, upper) = scores["accuracy_95"], scores["macro_f1_95"]
            print(
                f"{tool:38}{kind:10} accuracy {scores['accuracy']:.3f} [{low:.3f}, {high:.3f}]   "
                f"macro F1 {scores['macro_f1']:.3f} [{lower:.3f}, {upper:.3f}]"
            )


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Peers, description=__doc__)))

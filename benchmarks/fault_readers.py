"""The readers of users' texts, each with a maker of valid files, for :mod:`benchmarks.faults_text`."""

import json
import random
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit.examine import known_people
from benchmarks.fault_tables import array, finite, parquet_table
from checkpoints.artifact import read_header, write_header
from checkpoints.encoder import EncoderHeader
from checkpoints.errors import UserError
from checkpoints.reading import EMPTY
from features.cache import CacheHeader
from features.import_features import read_rows
from preprocessing.faces import FacesHeader
from preprocessing.labelled import find_labelled
from temporal.heads import HeadHeader
from wildaffect.tasks import TASKS
from wildaffect.tasks.challenge import header, parts, read_challenge_file, read_example
from wildaffect.tasks.class_map import SYNONYMS, ClassMap
from wildaffect.tasks.folds import read_known_ids
from wildaffect.tasks.labels import MTL_HEADER, read_annotations
from wildaffect.tasks.predictions import read_predictions, value_columns
from wildaffect.tasks.priors import named_prior

NUMBER = re.compile(r"[ \t]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?[ \t]*")
QUOTED = re.compile(r'^"([^"]*)"$')


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Attributes:
        make: A valid file.
        name: Its name.
        read: Reads it; returns the numbers that it took from the file.
        expect: The numbers that a plain strict parser takes from a text, in the same form; None if they are not
            compared.
    """

    make: Callable[[random.Random], str | bytes]
    name: str
    read: Callable[[Path], Any]
    expect: Callable[[str], Any] | None = None


def annotation(task: str) -> Reader:
    """An annotation file of a task."""
    kind = TASKS[task]

    def make(rng: random.Random) -> str:
        return "\n".join([kind.header, *(",".join(label(task, rng)) for _ in range(rng.randint(1, 8)))]) + "\n"

    def read(path: Path) -> Any:
        return next(track.labels.tolist() for track in read_annotations(path.parent, kind).values())

    return Reader(make, "video1.txt", read, lambda text: cells_of(text, 0))


def label(task: str, rng: random.Random) -> list[str]:
    """The numbers of one line."""
    if task == "va":
        return [f"{rng.uniform(-1, 1):.3f}" for _ in range(2)] if rng.random() < 0.9 else ["-5", "-5"]
    return [str(rng.randint(0, 1 if task == "au" else 7)) for _ in range(TASKS[task].label_width)]


def challenge_file(form: str) -> Reader:
    """A challenge file."""

    def make(rng: random.Random) -> str:
        rows = []
        for frame in range(1, rng.randint(2, 9)):
            numbers = [n for part in parts(form) for n in label(part, rng)]
            rows.append(f"v{frame % 2}/{frame:05d}.jpg," + ",".join("0" if n == "-5" else n for n in numbers))
        return "\n".join([header(form), *rows]) + "\n"

    def read(path: Path) -> Any:
        return np.concatenate([*read_challenge_file(path, form).values.values()], axis=1).tolist()

    return Reader(make, "sub.txt", read, lambda text: cells_of(text, 1))


def mtl_rows(rng: random.Random) -> str:
    """An MTL set."""
    numbers = [[*label("va", rng), *label("expr", rng), *label("au", rng)] for _ in range(rng.randint(1, 7))]
    rows = [f"video1/{frame + 1:05d}.jpg," + ",".join(row) for frame, row in enumerate(numbers)]
    return "\n".join([MTL_HEADER, *rows]) + "\n"


def csv_table(columns: Mapping[str, Callable[[random.Random], str]]) -> Callable[[random.Random], str]:
    """A CSV file; a column's cells may depend on nothing but `frame`, which counts."""

    def make(rng: random.Random) -> str:
        rows = [
            ",".join(str(frame) if name == "frame" else cell(rng) for name, cell in columns.items())
            for frame in range(1, rng.randint(2, 8))
        ]
        return "\n".join([",".join(columns), *rows]) + "\n"

    return make


def lines_of(text: str) -> list[str]:
    """Lines with any ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def cells_of(text: str, first: int) -> Any:
    """Numbers of a text file from a column on, as float32."""
    lines = lines_of(text.rstrip(" \t\r\n"))
    rows = [line.split(",")[first:] for line in lines[1:]]
    assert all(NUMBER.fullmatch(cell) and cell.isascii() for row in rows for cell in row)
    return [[float(np.float32(float(cell))) for cell in row] for row in rows]


def column_of(name: str) -> Callable[[str], Any]:
    """Numbers of a column of a CSV text, as float32, sorted; only whole cells may have quotes."""

    def expect(text: str) -> Any:
        lines = [line for line in lines_of(text.rstrip(" \t\r\n")) if line]
        names = [part.strip().lower() for part in lines[0].split(",")]
        rows = [[QUOTED.sub(r"\1", cell) for cell in line.split(",")] for line in lines[1:]]
        cells = [(row[names.index("frame")], row[names.index(name)]) for row in rows]
        cells = [(frame, cell) for frame, cell in cells if cell.strip(" \t").lower() not in EMPTY]
        assert all(NUMBER.fullmatch(cell) and cell.isascii() for row in cells for cell in row)
        assert all(float(frame).is_integer() and float(frame) >= 1 for frame, _ in cells)
        return sorted(float(np.float32(float(cell))) for _, cell in cells)

    return expect


def read_table_labels(path: Path) -> Any:
    """Valences of a label table's annotated frames."""
    tracks = read_annotations(path, TASKS["va"])
    if not tracks:
        raise UserError("no labels")
    assert all(name.isprintable() for name in tracks)
    return sorted(value for track in tracks.values() for value in track.labels[track.mask[:, 0], 0].tolist())


def read_valences(path: Path) -> Any:
    """Valences of a prediction table."""
    tracks = read_predictions(path)
    if any("va" not in track.values for track in tracks.values()):
        raise UserError("no valence")
    values = np.concatenate([track.values["va"][:, 0] for track in tracks.values()] or [np.zeros(0, np.float32)])
    return sorted(values[np.isfinite(values)].tolist())


def read_affectnet(path: Path) -> Any:
    """Items of AffectNet's list, whose values must be in range."""
    (path.parent / "1").mkdir(exist_ok=True)
    found = find_labelled(path.parent, crops=False)
    for item in found or ():
        assert item.label is not None
        values = [value for value in (item.label.valence, item.label.arousal) if value is not None]
        assert all(-1 <= value <= 1 for value in values) and np.isfinite(item.box).all()
    if found is None:
        raise UserError("no list of AffectNet")


def read_rafdb(path: Path) -> Any:
    """Items of RAF-DB's list."""
    (path.parent / "EmoLabel").mkdir(exist_ok=True)
    (path.parent / "Image" / "aligned").mkdir(parents=True, exist_ok=True)
    path.replace(path.parent / "EmoLabel" / path.name)
    items = list(find_labelled(path.parent, crops=True) or ())
    assert len({item.video for item in items}) == len(items)


def json_reader(valid: Any, read: Callable[[Path], Any]) -> Reader:
    """A JSON file."""
    return Reader(lambda _: json.dumps(valid), "a.json", read)


def header_reader(kind: str, form: Any, fields: dict[str, Any]) -> Reader:
    """The header of an artifact."""
    with tempfile.TemporaryDirectory() as folder:
        write_header(Path(folder), "a", kind=kind, schema=1, made_by="x", config={}, parents={"a": "b"}, **fields)
        valid = json.loads((Path(folder) / "a").read_text())
    return json_reader(valid, lambda path: read_header(path.parent, path.name, kind=kind, schema=1, form=form))


def check_class_map(path: Path) -> None:
    """A class map's meanings must be expressions."""
    names = ClassMap(path)
    assert all(names(name, "x") in (None, *range(8)) for name in SYNONYMS)


FRAMING = {"name": "arcface", "points": [[0.1 * k, 0.2] for k in range(5)]}
HEADERS = {
    "header of a store": header_reader(
        "faces store",
        FacesHeader,
        {
            "image_size": 112,
            "framing": FRAMING,
            "rows": 3,
            "shards": [{"name": "a.parquet", "rows": 3, "bytes": 9, "hash": "a"}],
            "fingerprint": "a",
            "problems": [{"source": "a", "problem": "b"}],
        },
    ),
    "header of a cache": header_reader(
        "feature cache",
        CacheHeader,
        {
            "feature_id": "a",
            "dim": 3,
            "sequences": {"v": {"first_frame": 1, "frames": 3, "valid": 3, "hash": "a"}},
            "trained_on": {"expr": ["v"]},
            "chosen_on": {},
            "encoder": "../e",
        },
    ),
    "header of an encoder": header_reader(
        "encoder",
        EncoderHeader,
        {
            "encoder": {"architecture": "vit", "image_size": 64, "mean": [0.5] * 3, "std": [0.5] * 3},
            "provenance": {"stage": "pretrain", "labelled_videos": {}},
            "weights": "a",
            "decoder": {"dim": 8, "depth": 1, "num_heads": 1, "mask_ratio": 0.5, "norm_pix_loss": True, "weights": "a"},
        },
    ),
    "header of a head": header_reader(
        "head",
        HeadHeader,
        {
            "task": "au",
            "recipe": "x",
            "architecture": {"window": 3},
            "inputs": [{"feature_id": "a", "dim": 3, "encoder": "../e", "framing": FRAMING}],
            "smoothing": {"au": {"kind": "box", "width": 3, "unit": "frames"}},
            "thresholds": [0.5] * 12,
            "prior": None,
            "trained_on": ["v"],
            "encoder_trained_on": {"expr": ["v"]},
            "record": {"scored_on": ["w"], "validation": {"au": {"score": 0.5}, "score": 0.5}},
            "weights": "a",
        },
    ),
}


def constant(text: str) -> Callable[[random.Random], str]:
    """A cell that is always the same."""
    return lambda _: text


def uniform(least: float, most: float) -> Callable[[random.Random], str]:
    """A cell with a number."""
    return lambda rng: f"{rng.uniform(least, most):.4f}"


COUNT = constant("")
LABELS = {"video": constant("v"), "frame": COUNT, "valence": uniform(-1, 1), "arousal": uniform(-1, 1)}
PREDICTIONS = {"frame": COUNT, "face": constant("true"), "valence": uniform(-1, 1), "arousal": uniform(-1, 1)}
READERS: dict[str, Reader] = {
    **{f"{task} annotation": annotation(task) for task in TASKS},
    **{f"{form} challenge file": challenge_file(form) for form in ("va", "expr", "au", "mtl")},
    "example file": Reader(challenge_file("va").make, "e.txt", lambda path: read_example(path).locations),
    "MTL rows": Reader(
        mtl_rows,
        "train_set.txt",
        lambda path: [track.labels.shape for task in TASKS.values() for track in read_annotations(path, task).values()],
    ),
    "prediction table": Reader(
        csv_table(PREDICTIONS | {name: uniform(0, 1) for name in value_columns(TASKS["au"])}),
        "video1.csv",
        read_valences,
        column_of("valence"),
    ),
    "label table": Reader(
        csv_table(LABELS),
        "labels.csv",
        read_table_labels,
        column_of("valence"),
    ),
    "label table in Parquet": Reader(
        parquet_table(LABELS), "labels.parquet", lambda path: finite(read_table_labels(path))
    ),
    "prediction table in Parquet": Reader(
        parquet_table(PREDICTIONS), "video1.parquet", lambda path: finite(read_valences(path))
    ),
    "array of features": Reader(
        array, "video1.npy", lambda path: [] if (rows := read_rows(path.parent, "video1")) is None else rows.shape
    ),
    "votes": Reader(
        csv_table({"video": constant("v"), "frame": COUNT, "happy": uniform(0, 9), "sad": uniform(0, 9)}),
        "votes.csv",
        lambda path: [t.labels.shape for t in read_annotations(path, TASKS["expr"]).values()],
    ),
    "class names": Reader(
        csv_table({"video": constant("v"), "frame": COUNT, "label": lambda rng: rng.choice(["happy", "Fear", ""])}),
        "names.csv",
        lambda path: [t.labels.shape for t in read_annotations(path, TASKS["expr"]).values()],
    ),
    "OpenFace": Reader(
        csv_table({"frame": COUNT, "success": constant("1"), "AU01_r": uniform(0, 5), "x_0": uniform(0, 640)}),
        "video1.csv",
        lambda path: [] if (rows := read_rows(path.parent, "video1")) is None else rows.shape,
    ),
    "identities": Reader(
        lambda rng: csv_table({"frame": COUNT, "identity": constant("p")})(rng).replace("frame", "id"),
        "people.csv",
        lambda path: known_people(path, path.parent, [f"{k}" for k in range(100)]),
    ),
    "AffectNet": Reader(
        csv_table(
            {"subDirectory_filePath": lambda rng: f"1/{rng.randint(0, 10**9)}.jpg"}
            | {f"face_{name}": uniform(0, 99) for name in ("x", "y", "width", "height")}
            | {"expression": lambda rng: str(rng.randint(0, 10))}
            | {"valence": uniform(-1, 1), "arousal": uniform(-1, 1)}
        ),
        "training.csv",
        read_affectnet,
    ),
    "RAF-DB": Reader(
        lambda rng: "".join(f"train_{k:05d}.jpg {rng.randint(1, 7)}\n" for k in range(rng.randint(1, 6))),
        "list_patition_label.txt",
        read_rafdb,
    ),
    "list of ids": Reader(
        lambda rng: "# held out\n" + "".join(f"v{rng.randint(0, 9)}\n" for _ in range(4)),
        "ids.txt",
        lambda path: read_known_ids(path, [f"v{k}" for k in range(10)]),
        lambda text: [line for part in lines_of(text) if (line := part.split("#")[0].strip())],
    ),
    "class map": json_reader({"contempt": "Other", "smile": "Happiness", "8": None}, check_class_map),
    "prior": json_reader(
        {"Neutral": 0.5, "Happiness": 1}, lambda path: named_prior(str(path), np.ones(8), np.ones(8)).tolist()
    ),
    **HEADERS,
}

"""The data sheet of a faces store: an HTML page that shows what is in it."""

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

from preprocessing.align import decode_jpeg
from preprocessing.faces import DATA, HEADER, Problem, have_pictures, read_jpegs
from preprocessing.shard import Thumbnail
from wildaffect.report.figures import histogram
from wildaffect.report.page import SYNTHETIC_NOTE, Cards, Figure, Section, Table, jpeg, write_page

SHEET = "report.html"
SAMPLE = 2000
"""Number of pictures whose sharpness and brightness are measured."""
SHOWN = 40
MOST_PROBLEMS = 200


@dataclass
class _Index:
    """The numbers of every row, without its picture.

    Attributes:
        place: Number of the shard, and of the row in it [N, 2].
        score: Detector score, NaN if there is none [N].
        side: Mean side of the face's box in source pixels, NaN if there is none [N].
        valid: Whether there is a picture [N].
        interpolated: Whether the face was interpolated between two detections [N].
        rate: Fraction of frames with a face, by sequence.
    """

    place: np.ndarray
    score: np.ndarray
    side: np.ndarray
    valid: np.ndarray
    interpolated: np.ndarray
    rate: dict[str, float] = field(default_factory=dict)


def write_sheet(store: Path, header: dict[str, Any], no_face: Iterable[Thumbnail]) -> None:
    """Write `report.html` into a finished store, whose `faces.json` holds `header`.

    `no_face` are thumbnails of frames without a face, each with `label` and a base64 `jpeg`.
    """
    names = [shard["name"] for shard in header["shards"]]
    index = _read_index(store, names)
    rng = np.random.default_rng(0)
    faces = np.flatnonzero(index.valid)
    sample = np.sort(rng.choice(faces, min(SAMPLE, len(faces)), replace=False))
    scored = faces[np.isfinite(index.score[faces])]
    worst = scored[np.argsort(index.score[scored], kind="stable")[:SHOWN]]
    looked_at = sorted({*sample.tolist(), *worst.tolist()})
    places = [(store / DATA / names[shard], row) for shard, row in index.place[looked_at].tolist()]
    pictures = dict(zip(looked_at, map(decode_jpeg, read_jpegs(places)), strict=True))

    sections = [_counts(header, index)]
    if len(faces):
        sections.append(_distributions(index, [pictures[row] for row in sample.tolist()]))
        shown = rng.permutation(sample)[:SHOWN].tolist()
        blocks = [Cards([Figure(jpeg(pictures[row]), width=96) for row in shown], "A random sample of faces")]
        if len(worst):
            cards = [Figure(jpeg(pictures[row]), f"{index.score[row]:.2f}", width=96) for row in worst.tolist()]
            blocks.append(Cards(cards, "The faces with the lowest detector scores"))
        sections.append(Section("Faces", blocks))
    missing = list(no_face)
    if missing:
        chosen = [missing[k] for k in np.sort(rng.choice(len(missing), min(SHOWN, len(missing)), replace=False))]
        cards = [Figure(base64.b64decode(item["jpeg"]), item["label"], width=144) for item in chosen]
        sections.append(Section("Frames without a face", [Cards(cards, "Some frames in which no face was found")]))
    sections.append(_problems(header["problems"]))
    note = SYNTHETIC_NOTE if header.get("synthetic") else ""
    write_page(store / SHEET, f"Faces store {store.resolve().name}", sections, note=note)


def _counts(header: dict[str, Any], index: _Index) -> Section:
    frames, found = header["frames"], int(index.valid.sum())
    rows = [
        ["videos and pictures", header["items"]],
        ["frames", frames],
        ["sequences (people in videos)", len(index.rate)],
        ["rows", header["rows"]],
        ["rows with a face", f"{found:,} ({found / max(header['rows'], 1):.1%})"],
        ["of which interpolated between detections", int(index.interpolated.sum())],
        ["face size", f"{header['image_size']} x {header['image_size']} pixels"],
        ["framing of the faces", header["framing"]["name"]],
        ["bytes", sum(shard["bytes"] for shard in header["shards"])],
        ["problems", len(header["problems"])],
        ["fingerprint", header["fingerprint"][:16]],
        ["sources", ", ".join(header["config"]["sources"])],
    ]
    blocks: list[Any] = [Table(["", ""], rows)]
    poorest = sorted(index.rate.items(), key=lambda item: (item[1], item[0]))[:15]
    poorest = [(name, rate) for name, rate in poorest if rate < 1]
    if poorest:
        lines = [[name, f"{rate:.1%}"] for name, rate in poorest]
        blocks.append(Table(["sequence", "frames with a face"], lines, "Sequences with the fewest faces found"))
    return Section("Counts", blocks)


def _distributions(index: _Index, pictures: Sequence[np.ndarray]) -> Section:
    size = "Face size in the source; faces much smaller than the aligned size are blurred"
    sharp, bright = (np.array([measure(image) for image in pictures]) for measure in (sharpness, np.mean))
    measured = [
        (index.side, "side of the face box (pixels)", size),
        (index.score, "score", "Detector score"),
        (sharp, "sharpness", "Sharpness: standard deviation of the Laplacian of the grey values"),
        (bright, "brightness (0 to 255)", "Brightness: mean pixel value"),
    ]
    blocks = [
        Figure(histogram(values, label=label, log=label == "score"), text, width=420)
        for values, label, text in measured
        if np.isfinite(values).any()
    ]
    return Section("Distributions", blocks)


def _problems(problems: Sequence[Problem]) -> Section:
    if not problems:
        return Section("Problems", ["None. Every source was read completely."])
    kinds = Counter(problem["problem"].split(":")[0] for problem in problems).most_common(20)
    rows = [[problem["source"], problem["problem"]] for problem in problems[:MOST_PROBLEMS]]
    note = (
        f"The first {len(rows)} of {len(problems)}; the full list is in {HEADER}" if len(rows) < len(problems) else ""
    )
    return Section(
        "Problems", [Table(["problem", "count"], [list(k) for k in kinds]), Table(["source", "problem"], rows, note)]
    )


def sharpness(image: np.ndarray) -> float:
    """Standard deviation of the Laplacian of a picture's grey values."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std())


def _read_index(store: Path, names: Sequence[str]) -> _Index:
    """Read the numbers of every row."""
    columns = ["video", "subject", "box", "score", "interpolated"]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("place", "score", "side", "valid", "interpolated")}
    frames: Counter[str] = Counter()
    faces: Counter[str] = Counter()
    for number, name in enumerate(names):
        table = pq.ParquetFile(store / DATA / name).read(columns=columns)
        valid = have_pictures(store / DATA / name)
        parts["place"].append(np.stack([np.full(len(valid), number), np.arange(len(valid))], 1))
        parts["valid"].append(valid)
        parts["interpolated"].append(table["interpolated"].to_numpy())
        parts["score"].append(table["score"].to_numpy().astype(np.float64))
        boxes = np.full((len(valid), 4), np.nan)
        given = table["box"].is_valid().to_numpy()
        boxes[given] = table["box"].drop_null().combine_chunks().flatten().to_numpy().reshape(-1, 4)
        parts["side"].append(((boxes[:, 2] - boxes[:, 0]) + (boxes[:, 3] - boxes[:, 1])) / 2)
        for video, subject, seen in zip(table["video"].to_pylist(), table["subject"].to_pylist(), valid, strict=True):
            key = f"{video}_{subject}" if subject else video
            frames[key] += 1
            faces[key] += bool(seen)
    joined = {name: np.concatenate(values) if values else np.zeros(0) for name, values in parts.items()}
    return _Index(**joined, rate={key: faces[key] / count for key, count in frames.items()})

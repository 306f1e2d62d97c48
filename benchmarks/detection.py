"""Compares preprocessing's face search with MTCNN on every frame: speed, recall, landmarks, jitter, identity switches.

    python benchmarks/detection.py --videos DIR --out benchmarks/results/detection.json

Both sides get the same decoded frames and one thread, and processor time is measured. The reference is
`facenet_pytorch.MTCNN(keep_all=True).detect`, as most code in this field calls it. Our side is everything that
preprocessing does with a decoded frame: shot cuts, search, refinement, tracks, alignment and JPEG. Recall and landmarks
are measured on the rows that end up in the store. Distances are relative to the distance between the eyes. Jitter is
the median distance of a landmark from the midpoint of its positions one frame before and after: noise, if people move
smoothly.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import facenet_pytorch
import numpy as np
import torch
import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import UserError, guarded
from preprocessing.detect import iou
from preprocessing.mtcnn import MTCNN
from preprocessing.rows import Found
from preprocessing.shard import CHUNK_BYTES, Settings, chunks, follow, run_together
from preprocessing.tracks import group_subjects, name_subjects
from preprocessing.video import Frame, read_frames

CLIPS = (
    "woman2.mp4",
    "WDA_AlexandriaOcasioCortez_000.mp4",
    "WDA_KatieHill_000.mp4",
    "WolfgangLanger_Pexels.mp4",
    "short_hamilton_clip.mp4",
)


@dataclass
class Config:
    """Compare face search with MTCNN on every frame."""

    videos: Path
    """Folder of the clips."""
    out: Path | None = None
    """Where to record the table as JSON."""
    clips: list[str] = field(default_factory=lambda: list(CLIPS))
    """Clips to use, by file name."""


@dataclass
class Face:
    """One face in one frame."""

    subject: str
    box: np.ndarray
    landmarks: np.ndarray
    score: float
    interpolated: bool


def ours(frames: Sequence[Frame], detector: MTCNN) -> tuple[float, list[list[Face]]]:
    """Seconds taken, and the faces of each frame that would become rows of the store."""
    started = time.process_time()
    with tempfile.SpooledTemporaryFile(max_size=1 << 20) as spool:
        found = Found(spool)
        run_together([follow(chunks(iter(frames), found.times, CHUNK_BYTES), found, Settings())], detector)
        seconds = time.process_time() - started
        faces: list[list[Face]] = [[] for _ in frames]
        for subject, tracks in name_subjects(group_subjects(found.tracks, len(frames))).items():
            for track in tracks:
                for frame, place in zip(*found.places[track.number], strict=True):
                    row = found.get(place)
                    landmarks = np.array(row["landmarks"]).reshape(5, 2)
                    faces[frame - 1].append(
                        Face(subject, np.array(row["box"]), landmarks, row["score"] or 0.0, row["interpolated"])
                    )
    return seconds, faces


def reference(frames: Sequence[Frame]) -> tuple[float, list[list[Face]]]:
    """The same for MTCNN on every frame; it knows no subjects."""
    detector = facenet_pytorch.MTCNN(keep_all=True)
    started = time.process_time()
    results = [detector.detect(frame.image, landmarks=True) for frame in frames]
    seconds = time.process_time() - started
    return seconds, [
        [
            Face("", np.asarray(box, float), np.asarray(points, float), float(score), False)
            for box, score, points in zip(boxes if boxes is not None else (), scores, landmarks, strict=False)
        ]
        for boxes, scores, landmarks in ((b, s, p if p is not None else ()) for b, s, p in results)
    ]


def compare(mine: list[list[Face]], theirs: list[list[Face]]) -> dict[str, Any]:
    """Recall of the reference's confident faces, landmark distances, and identity switches along them."""
    wanted = found = swaps = 0
    distances: list[float] = []
    matched: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    followed: list[tuple[np.ndarray, str]] = []  # boxes of the reference in the last frame, and our subject there
    for number, (own, other) in enumerate(zip(mine, theirs, strict=True)):
        boxes = np.array([face.box for face in own]).reshape(-1, 4)
        following: list[tuple[np.ndarray, str]] = []
        for face in other:
            if face.score < 0.95:
                continue
            wanted += 1
            overlap = iou(face.box[None], boxes)[0]
            if not len(overlap) or overlap.max() < 0.5:
                continue
            found += 1
            best = own[int(overlap.argmax())]
            eyes = np.linalg.norm(face.landmarks[0] - face.landmarks[1])
            distances.append(float(np.linalg.norm(face.landmarks - best.landmarks, axis=1).mean() / eyes))
            matched[best.subject, number] = best.landmarks, face.landmarks
            following.append((face.box, best.subject))
            # The same face by position alone, independent of our tracks: more than half overlap, frame to frame.
            swaps += any(
                iou(face.box[None], box[None])[0, 0] > 0.5 and subject != best.subject for box, subject in followed
            )
        followed = following
    return {
        "faces": wanted,
        "found": found,
        "swaps": swaps,
        "landmark_mean": float(np.mean(distances)) if distances else None,
        "landmark_median": float(np.median(distances)) if distances else None,
        "landmark_p95": float(np.quantile(distances, 0.95)) if distances else None,
        "jitter": jitter([(key, own) for key, (own, _) in matched.items()]),
        "jitter_reference": jitter([(key, other) for key, (_, other) in matched.items()]),
        "_distances": distances,
    }


def jitter(places: Sequence[tuple[tuple[str, int], np.ndarray]]) -> float | None:
    """Median distance of a landmark from the midpoint of its positions one frame earlier and later."""
    at = dict(places)
    off = []
    for (who, frame), place in places:
        if (who, frame - 1) in at and (who, frame + 1) in at:
            middle = (at[who, frame - 1] + at[who, frame + 1]) / 2
            off.append(np.linalg.norm(middle - place, axis=1).mean() / np.linalg.norm(place[0] - place[1]))
    return float(np.median(off)) if off else None


def _clips(config: Config) -> Iterator[tuple[str, list[Frame]]]:
    for name in config.clips:
        path = config.videos / name
        if not path.exists():
            raise UserError(f"{path} does not exist: give the folder of the clips by --videos")
        yield name, list(read_frames(path, print))


def main() -> None:
    """Run the comparison clip by clip and print the table."""
    config = tyro.cli(Config, description=__doc__)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    detector = MTCNN()
    rows: list[dict[str, Any]] = []
    for name, frames in _clips(config):
        ours(frames[:40], detector)  # warm up
        seconds, mine = ours(frames, detector)
        seconds_reference, theirs = reference(frames)
        row: dict[str, Any] = {"clip": name, "frames": len(frames)}
        row |= {"seconds": seconds, "seconds_reference": seconds_reference, **compare(mine, theirs)}
        row["subjects"] = len({face.subject for faces in mine for face in faces})
        row["interpolated"] = sum(face.interpolated for faces in mine for face in faces)
        rows.append(row)
        _print(row)
    total: dict[str, Any] = {"clip": "all"}
    for key in ("frames", "seconds", "seconds_reference", "faces", "found", "swaps"):
        total[key] = sum(row[key] for row in rows)
    distances = np.array([d for row in rows for d in row.pop("_distances")])
    total |= {"landmark_mean": float(distances.mean()), "landmark_median": float(np.median(distances))}
    total["landmark_p95"] = float(np.quantile(distances, 0.95))
    _print(total)
    if config.out:
        versions = {"python": platform.python_version(), "torch": torch.__version__, "opencv": cv2.__version__}
        write_json(config.out, {"clips": rows, "all": total, "versions": versions, "threads": 1})


def _print(row: dict[str, Any]) -> None:
    speed, speed_reference = row["frames"] / row["seconds"], row["frames"] / row["seconds_reference"]
    print(
        f"{row['clip']:36} {row['frames']:5} frames  {speed:6.1f} against {speed_reference:5.1f} frames/s "
        f"= {speed / speed_reference:4.1f}x  recall {row['found']}/{row['faces']}  "
        f"landmarks {row['landmark_mean'] or 0:.4f} (95 %: {row['landmark_p95'] or 0:.4f})  swaps {row['swaps']}"
        + (f"  jitter {row['jitter']:.4f} against {row['jitter_reference']:.4f}" if "jitter" in row else "")
        + (f"  subjects {row['subjects']}  bridged {row['interpolated']}" if "subjects" in row else "")
    )


if __name__ == "__main__":
    guarded(main)

"""The report of a feature cache: what is in it, and a map of its features."""

from pathlib import Path
from typing import Any

import numpy as np

from features.cache import FeatureCache
from preprocessing.faces import FacesStore
from wildaffect.report import figures
from wildaffect.report.page import SYNTHETIC_NOTE, Figure, Note, Section, Table, write_page
from wildaffect.tasks import EXPRESSIONS
from wildaffect.tasks.label_track import Tracks

SAMPLED = 4000
VIDEOS = 8


def write_report(cache_path: Path, store: FacesStore, labels: Tracks | None, unreadable: int | None) -> None:
    """Write `CACHE/report.html`.

    Args:
        cache_path: A complete cache.
        store: The faces that it was made from.
        labels: Expression labels to colour the map by; None to colour it by video.
        unreadable: Number of pictures that could not be decoded; None if they were not counted.
    """
    cache = FeatureCache(cache_path)
    sequences = cache.header["sequences"]
    frames, valid = (np.array([item[key] for item in sequences.values()]) for key in ("frames", "valid"))
    what = "sound" if cache.made.get("sound") else "a face"
    facts: list[list[Any]] = [
        ["sequences", len(sequences)],
        ["frames", int(frames.sum())],
        [f"with {what}", int(valid.sum())],
        *([] if unreadable is None else [["pictures that could not be decoded", unreadable]]),
        ["dimensions", cache.dim],
        *(list(item) for item in sorted(cache.header["config"].items())),
        ["encoder", cache.header.get("encoder", "")],
        ["feature id", cache.feature_id],
    ]
    missing = sorted(
        ((1 - item["valid"] / item["frames"], id, item["frames"]) for id, item in sequences.items()), reverse=True
    )
    rows: list[list[Any]] = [[id, count, f"{share:.1%}"] for share, id, count in missing[:10] if share]
    blocks: list[Any] = [Table(["", ""], facts)]
    if rows:
        blocks.append(Table(["sequence", "frames", f"without {what}"], rows, f"Where {what} is missing most"))
    note = SYNTHETIC_NOTE if store.header.get("synthetic") else ""
    sections = [Section("What is in it", blocks), Section("Map of the features", _map(cache, labels))]
    write_page(cache_path / "report.html", "Feature cache", sections, note=note)


def _map(cache: FeatureCache, labels: Tracks | None) -> list[Any]:
    if labels is None:
        features, groups, names = _by_video(cache)
        caption = f"Features of {VIDEOS} videos on their first two principal components, coloured by video"
    else:
        features, groups = _by_label(cache, labels)
        names = list(EXPRESSIONS)
        caption = "Sampled features on their first two principal components, coloured by expression label"
    if len(features) < 3:
        return [Note("There are too few features to draw.")]
    return [Figure(figures.pca_map(features, groups, names), caption, width=640)]


def _by_video(cache: FeatureCache) -> tuple[np.ndarray, np.ndarray, list[str]]:
    longest = sorted(cache.ids, key=lambda id: -cache.sequences[id]["valid"])[:VIDEOS]
    features, groups = [], []
    for number, id in enumerate(longest):
        found = cache.read(id)
        features.append(found.features[found.valid][: SAMPLED // VIDEOS])
        groups.append(np.full(len(features[-1]), number))
    return np.concatenate(features).astype(np.float32), np.concatenate(groups), longest


def _by_label(cache: FeatureCache, source: Tracks) -> tuple[np.ndarray, np.ndarray]:
    known = [id for id in sorted(source) if id in cache and source[id].mask.any()]
    # Spread the sample over all videos.
    chosen = known[:: max(1, len(known) // SAMPLED)]
    each = max(1, SAMPLED // max(1, len(chosen)))
    features, groups = [np.zeros((0, cache.dim), np.float16)], [np.zeros(0, int)]
    for id in chosen:
        track, found = source[id], cache.read(id)
        frames = np.flatnonzero(track.mask[:, 0]) + 1
        place = frames - found.first_frame
        inside = np.flatnonzero((place >= 0) & (place < len(found)))
        inside = inside[found.valid[place[inside]]]
        inside = inside[np.linspace(0, len(inside) - 1, min(each, len(inside))).astype(int)]
        features.append(found.features[place[inside]])
        groups.append(track.labels[frames[inside] - 1, 0].astype(int))
    return np.concatenate(features).astype(np.float32), np.concatenate(groups)

"""The extraction job: finds stale sequences, fills batches across videos, writes one atomic file per sequence."""

import hashlib
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from checkpoints.encoder import chosen_on
from features.cache import write_features
from features.embed import Embedder
from features.making import CacheInMaking, Origin
from preprocessing.faces import FacesStore
from preprocessing.faces import Sequence as FaceSequence
from preprocessing.views import StillFrames
from wildaffect.report.bar import progress_bar
from wildaffect.training.images import work_ahead


class Cache(CacheInMaking):
    """The cache of one encoder and view.

    Args:
        path: Its directory.
        embedder: Makes the features.
        store: The faces.
        encoder_path: Where the encoder is, for readers of the cache.
        precision: The arithmetic, `bf16` or `fp32`.
    """

    def __init__(self, path: Path, embedder: Embedder, store: FacesStore, *, encoder_path: str, precision: str) -> None:
        self.embedder, encoder = embedder, embedder.encoder
        origin = Origin(
            feature_id=embedder.feature_id,
            dim=encoder.dim,
            made_of=f"{embedder.feature_id} {precision}",
            config={
                **{"view": embedder.view, "flip": embedder.flip, "pooling": encoder.config.pooling},
                **{"precision": precision, "framing": embedder.framing.as_dict()},
            },
            fingerprint=encoder.fingerprint,
            encoder=encoder_path,
            seen={
                "trained_on": encoder.provenance.get("labelled_videos") or {},
                "chosen_on": chosen_on(encoder.provenance),
            },
        )
        super().__init__(path, origin, store)


def share(sequences: Sequence[FaceSequence], rank: int, world: int) -> list[FaceSequence]:
    """This process's sequences, in the store's order.

    The longest sequences are dealt out first, each to the process that has the fewest frames.
    """
    loads = np.zeros(world)
    owner = np.zeros(len(sequences), int)
    for number in sorted(range(len(sequences)), key=lambda number: -sequences[number].length):
        owner[number] = loads.argmin()
        loads[owner[number]] += sequences[number].length
    return [sequence for number, sequence in enumerate(sequences) if owner[number] == rank]


def content_of(store: FacesStore, sequence: FaceSequence) -> str:
    """Fingerprint of a sequence's rows: frame numbers, times and the bytes of its pictures."""
    rows = slice(sequence.start, sequence.start + sequence.length)
    digest = hashlib.sha256()
    for column in (store.frame, store.time_s, store.valid):
        digest.update(np.ascontiguousarray(column[rows]).tobytes())
    for row in np.flatnonzero(store.valid[rows]) + sequence.start:
        digest.update(hashlib.sha256(store.jpeg(int(row)) or b"").digest())
    return digest.hexdigest()


@dataclass
class Done:
    """What one process did."""

    extracted: int = 0
    frames: int = 0
    up_to_date: int = 0
    unreadable: int = 0
    seconds: float = 0.0


@dataclass
class OpenSequence:
    """A sequence whose features are coming in.

    Attributes:
        sequence: The sequence.
        rows: `[n]` store rows with a picture.
        sources: Number of each cache that lacks it -> the source to record; empty if it is up to date.
        features: `[V, T, D]`.
        valid: `[T]`.
        filled: Number of rows that are done.
    """

    sequence: FaceSequence
    rows: np.ndarray
    sources: dict[int, str]
    features: np.ndarray
    valid: np.ndarray
    filled: int = 0


class Job:
    """Hands out batches of rows and takes in their features, in the same order; `bar` is advanced by frames.

    The rows of all sequences are cut into batches in order, whether or not a sequence is up to date. A batch is skipped
    if all its sequences are up to date. So a picture shares its batch with the same others in a resumed job as in an
    uninterrupted one, and its feature is the same to the last bit. The features go to one cache per view.
    """

    def __init__(
        self,
        store: FacesStore,
        sequences: Sequence[FaceSequence],
        caches: Sequence[Cache],
        batch_size: int,
        bar: "tqdm[Any]",
    ) -> None:
        self.store, self.sequences, self.caches, self.batch_size, self.bar = store, sequences, caches, batch_size, bar
        self.done = Done()
        self._segments: deque[list[tuple[OpenSequence, np.ndarray]]] = deque()

    def batches(self) -> Iterator[list[int]]:
        """Batches of rows, across the borders of sequences, without those whose sequences are all up to date."""
        segments: list[tuple[OpenSequence, np.ndarray]] = []
        room = self.batch_size
        for sequence in self.sequences:
            opened = self._open(sequence)
            at = 0
            while at < len(opened.rows):
                segments.append((opened, opened.rows[at : at + room]))
                at += len(segments[-1][1])
                room -= len(segments[-1][1])
                if not room:
                    yield from self._hand_out(segments)
                    segments, room = [], self.batch_size
        yield from self._hand_out(segments)

    def _open(self, sequence: FaceSequence) -> OpenSequence:
        content = content_of(self.store, sequence)
        sources = {}
        for number, cache in enumerate(self.caches):
            source = cache.source(content)
            reason = cache.stale(sequence.id, source)
            if reason is not None:
                sources[number] = source
                if reason != "missing":
                    self.bar.write(f"extracted again: {cache.path}/{sequence.id} is {reason}", file=sys.stdout)
        rows = np.flatnonzero(self.store.valid[sequence.start : sequence.start + sequence.length]) + sequence.start
        shape = (len(self.caches), sequence.length if sources else 0, self.caches[0].embedder.encoder.dim)
        opened = OpenSequence(sequence, rows, sources, np.zeros(shape, np.float16), np.zeros(sequence.length, bool))
        if not sources:
            self.done.up_to_date += 1
            self.bar.initial += sequence.length  # not done now, so it does not count towards the rate
            self.bar.n += sequence.length
        elif not len(rows):
            self._write(opened)
        return opened

    def _hand_out(self, segments: list[tuple[OpenSequence, np.ndarray]]) -> Iterator[list[int]]:
        if any(opened.sources for opened, _ in segments):
            self._segments.append(segments)
            yield np.concatenate([rows for _, rows in segments]).tolist()

    def take(self, features: np.ndarray, readable: np.ndarray) -> None:
        """Take in the features `[B, V, D]` of the next batch and write the sequences that are now complete."""
        at = 0
        for opened, rows in self._segments.popleft():
            part = slice(at, at + len(rows))
            at += len(rows)
            if not opened.sources:
                continue
            place, good = rows - opened.sequence.start, readable[part]
            opened.features[:, place[good]] = features[part][good].swapaxes(0, 1)
            opened.valid[place] = good
            opened.filled += len(rows)
            self.bar.update(len(rows))
            self.done.unreadable += int((~good).sum())
            if opened.filled == len(opened.rows):
                self._write(opened)

    def _write(self, full: OpenSequence) -> None:
        sequence = full.sequence
        for number, source in full.sources.items():
            write_features(
                self.caches[number].path,
                sequence.id,
                features=full.features[number],
                valid=full.valid,
                time_s=self.store.time_s[sequence.start : sequence.start + sequence.length],
                first_frame=sequence.first_frame,
                source=source,
            )
        self.done.extracted += 1
        self.done.frames += len(full.rows)
        self.bar.update(sequence.length - len(full.rows))


def extract_sequences(
    accelerator: Accelerator,
    store: FacesStore,
    sequences: Sequence[FaceSequence],
    caches: Sequence[Cache],
    *,
    batch_size: int,
    workers: int,
) -> Done:
    """Extract this process's sequences into the caches; call under `torch.inference_mode`."""
    start = time.perf_counter()
    views = [cache.embedder.view for cache in caches]
    stills = StillFrames(store, views, caches[0].embedder.encoder.config.image_size)
    total = sum(sequence.length for sequence in sequences)
    hidden = not accelerator.is_main_process
    # One autocast for all batches, because it caches the weights that it has cast.
    with accelerator.autocast(), progress_bar(total=total, unit="frame", disable=hidden) as bar:
        job = Job(store, sequences, caches, batch_size, bar)
        waiting: tuple[torch.Tensor, torch.Tensor] | None = None
        for batch in work_ahead(stills, workers, job.batches()):
            images = batch["images"].to(accelerator.device, non_blocking=True)
            made = torch.stack([cache.embedder(images[:, view]) for view, cache in enumerate(caches)], dim=1)
            # Fetched one batch late, so that a GPU never waits for the copy.
            if waiting is not None:
                job.take(*(tensor.cpu().numpy() for tensor in waiting))
            waiting = made.half(), batch["readable"]
        if waiting is not None:
            job.take(*(tensor.cpu().numpy() for tensor in waiting))
    job.done.seconds = time.perf_counter() - start
    return job.done

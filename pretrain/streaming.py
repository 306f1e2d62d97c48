"""Streams faces stores that are larger than memory or on remote storage, shard by shard, without copying them.

An address is anything that fsspec understands: `s3://bucket/faces`, `hf://datasets/me/faces`, `file:///data/faces`.
Shards are permuted by (seed, epoch) and dealt to the workers of all processes. Each worker reads several of its shards
at a time with Arrow and shuffles blocks of their pictures. Its position follows from the step alone, so a resumed run
continues at (shard, row) and equals the uninterrupted one. With another number of processes or workers the shards are
dealt differently, and batches hold other pictures.

Shards are read with Arrow rather than by streaming with `datasets`, which would divide the shards among workers once
more and reads each shard from its beginning, while here a row group is found by its number.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from checkpoints.artifact import checked_header
from checkpoints.errors import UserError
from checkpoints.reading import decode_text, parse_json
from preprocessing.faces import DATA, HEADER, KIND, SCHEMA, FacesHeader, pictures_by_group
from preprocessing.views import face_views
from pretrain.mixture import check_weights, fingerprints_of
from wildaffect.tasks.folds import group_of, read_ids, refuse_unknown
from wildaffect.training.batches import BatchPlan, sample_rng
from wildaffect.training.images import RandomCrop, decode, first_readable, readable, stacked

try:
    from botocore.exceptions import BotoCoreError  # s3fs lets it through, as when no server answers
except ImportError:  # without s3fs
    BotoCoreError = OSError

T = TypeVar("T")
UNREADABLE = (OSError, ImportError, ValueError, BotoCoreError)
"""What reading an address raises; Arrow's errors are ValueErrors."""
BLOCK = 4096
"""Pictures, as JPEG, that a worker holds and shuffles at a time."""
TOGETHER = 16
"""Shards that a worker reads at a time, so that a block is not made of two or three videos."""
LOOKING = 16
"""Shards that are looked at at a time, before and after training."""
SHOWN = 64
"""Pictures of a store used for statistics and reconstructions."""


def is_address(faces: object) -> bool:
    """Whether a store is given by address rather than as a folder."""
    return "://" in str(faces)


class FacesStream:
    """A finished faces store at an address.

    Of the header only what a reader needs is kept, because every worker has a copy and it may list millions of shards.

    Args:
        address: Where it is; a folder counts as a `file://` address.
        left_out: Recordings that are left out.

    Attributes:
        faces: Number of pictures in each shard, int64 `[S]`.
        excluded: Number of pictures that are left out.
        found: Those of `left_out` that it holds.
        fingerprint, image_size, synthetic: As in the header.

    Raises:
        UserError: It cannot be read, is not a complete faces store, or has no picture to train on.
    """

    def __init__(self, address: str | Path, left_out: frozenset[str] = frozenset()) -> None:
        self.address = str(address).rstrip("/") if is_address(address) else f"file://{Path(address).resolve()}"
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.address)
            content = self._fs.cat_file(f"{self._root}/{HEADER}")
        except UNREADABLE as error:
            raise UserError(
                f"{self.address} cannot be read as a faces store ({type(error).__name__}: {error}): expected a "
                f"complete store with {HEADER}; s3:// and similar need their fsspec package (`pip install s3fs`)"
            ) from None
        where = f"{self.address}/{HEADER}"
        found = parse_json(decode_text(content, where), where)
        header = checked_header(found, where, kind=KIND, schema=SCHEMA, form=FacesHeader)
        self.fingerprint: str = header["fingerprint"]
        self.image_size: int = header["image_size"]
        self.synthetic = bool(header.get("synthetic", False))
        self._names = pa.array([shard["name"] for shard in header["shards"]], pa.string())
        self._left_out, self.excluded = left_out, 0
        self.found: set[str] = set()
        counts = [shard.get("faces") for shard in header["shards"]]
        self.faces = self._counted() if left_out or None in counts else np.array(counts, dtype=np.int64)
        if not self.faces.sum():
            raise UserError(
                f"{self.address}: no picture with a face to train on (--exclude leaves out {self.excluded:,})"
            )

    def _counted(self) -> np.ndarray:
        """Number of pictures to train on in each shard, from the shards themselves."""

        def look(file: pq.ParquetFile) -> tuple[int, int, set[str]]:
            found = {group_of(video) for video in _videos(file)} & self._left_out if self._left_out else set()
            return sum(pictures_by_group(file.metadata)), sum(self._kept_by_group(file)), found

        pictures, kept, found = zip(*self._of_each_shard(look), strict=True)
        self.excluded, self.found = sum(pictures) - sum(kept), set().union(*found)
        return np.array(kept, dtype=np.int64)

    def _open(self, shard: int) -> IO[bytes]:
        """Open a shard. Nothing is read ahead: fsspec would fetch all of it, up to 50 MiB, for a column of names."""
        return cast(IO[bytes], self._fs.open(self.path(shard), cache_type="none"))

    def _of_each_shard(self, look: Callable[[pq.ParquetFile], T]) -> Iterator[T]:
        """What `look` says of each shard, in order; several are looked at at a time."""

        def opened(shard: int) -> T:
            with self._open(shard) as remote:
                return look(pq.ParquetFile(remote))

        try:
            with ThreadPoolExecutor(LOOKING) as pool:
                yield from pool.map(opened, range(len(self._names)))
        except UNREADABLE as error:
            raise UserError(f"a shard of {self.address} cannot be read: {error}") from None

    def _kept_by_group(self, file: pq.ParquetFile) -> list[int]:
        """Number of pictures to train on in each row group of a shard."""
        if not self._left_out:
            return pictures_by_group(file.metadata)
        return [len(self._kept(file, group, "path")) for group in range(file.num_row_groups)]

    def _kept(self, file: pq.ParquetFile, group: int, field: str) -> list[Any]:
        """A field of the pictures to train on in a row group."""
        columns = [f"image.{field}", *(["video"] if self._left_out else [])]
        table = file.read_row_group(group, columns=columns, use_threads=False)
        images = [image[field].as_py() if image.is_valid else None for image in table["image"].combine_chunks()]
        stays = [True] * len(images)
        if self._left_out:
            stays = [group_of(video) not in self._left_out for video in table["video"].to_pylist()]
        return [image for image, stay in zip(images, stays, strict=True) if stay and image is not None]

    def path(self, shard: int) -> str:
        """Path of a shard in its file system."""
        return f"{self._root}/{DATA}/{self._names[shard].as_py()}"

    @property
    def videos(self) -> Iterator[str]:
        """Names of the videos (not of single pictures) that the pictures come from."""
        for videos in self._of_each_shard(_videos):
            for video, frames in videos.items():
                if frames > 1 and group_of(video) not in self._left_out:
                    yield video

    def read(self, shard: int, skip: int) -> Iterator[tuple[int, bytes]]:
        """Positions in a shard and JPEG bytes of its pictures, without the first `skip`."""
        first = 0
        with self._open(shard) as remote:
            file = pq.ParquetFile(remote)
            for group, pictures in enumerate(self._kept_by_group(file)):
                if skip < first + pictures:  # others are passed over without fetching them
                    jpegs = self._kept(file, group, "bytes")
                    for place in range(max(skip - first, 0), pictures):
                        yield first + place, jpegs[place]
                first += pictures

    @cached_property
    def shown(self) -> list[bytes]:
        """The first readable pictures, to look at."""
        jpegs = (jpeg for shard in range(len(self._names)) for _, jpeg in self.read(shard, 0))
        return [jpeg for jpeg in islice(jpegs, SHOWN) if readable(jpeg)]


class StreamedMixture:
    """The pictures of one or several streamed stores.

    Without weights the shards of all stores are shuffled together, and an epoch has every picture once. With weights
    each store gets its share of a reader's samples, and its shards are read in shuffled passes of their own. Unlike
    local stores, streamed ones are not searched for near-duplicates.

    Args:
        faces: Addresses or folders of the stores.
        weights: Share of each store; empty: in proportion to the number of pictures.
        exclude: List of ids whose recordings are left out, one per line.

    Attributes:
        parts: Numbers of the shards that are shuffled together, int64 arrays.
        shares: Share of each part in the samples, adding up to 1.
        faces: Number of pictures in each shard, int64 `[S]`.
        starts: Number of the first picture of each shard.

    Raises:
        UserError: A store cannot be read, or the weights are invalid.
    """

    def __init__(self, faces: Sequence[str | Path], weights: Sequence[float] = (), exclude: Path | None = None) -> None:
        check_weights(weights, len(faces))
        self._ids = [] if exclude is None else read_ids(exclude)
        left_out = frozenset(map(group_of, self._ids))
        self.streams = [FacesStream(address, left_out) for address in faces]
        if exclude is not None:
            refuse_unknown(exclude, self._ids, set().union(*(stream.found for stream in self.streams)))
        shards = [len(stream.faces) for stream in self.streams]
        self._first_shard = np.cumsum(shards) - shards
        self.faces = np.concatenate([stream.faces for stream in self.streams])
        self.starts = np.cumsum(self.faces) - self.faces
        numbers = np.arange(len(self.faces))
        self.parts = np.split(numbers, self._first_shard[1:]) if weights else [numbers]
        self.shares = np.array(weights or [1.0]) / sum(weights or [1.0])

    def __len__(self) -> int:
        return int(self.faces.sum())

    def workers(self, asked: int, world: int) -> int:
        """Number of workers for each of `world` processes: `asked`, or fewer if there are too few shards.

        Raises:
            UserError: There are fewer shards than processes.
        """
        fewest = min(map(len, self.parts))
        named = " and ".join(stream.address for stream in self.streams)
        if fewest < world:
            raise UserError(f"{named}: {fewest} shards to deal out, too few for {world} processes")
        if asked > (most := fewest // world):
            print(f"note: {named}: {fewest} shards to deal out: {most} worker(s) per process", flush=True)
        return min(asked, most)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each store, in the order given, and of the excluded ids."""
        return fingerprints_of(self.streams, self._ids)

    @property
    def synthetic(self) -> bool:
        """Whether all stores declare their faces to be drawn."""
        return all(stream.synthetic for stream in self.streams)

    @cached_property
    def videos(self) -> list[str]:
        """Names of the videos (not of single pictures) that the pictures come from."""
        return sorted({video for stream in self.streams for video in stream.videos})

    def statistics(self, epochs: float) -> list[dict[str, Any]]:
        """Facts about the stores before training, in the same form as those of a local mixture."""
        facts = []
        for number, stream in enumerate(self.streams):
            pictures = int(stream.faces.sum())
            share = float(self.shares[number]) if len(self.parts) > 1 else pictures / len(self)
            grey = [float(decode(jpeg).float().mean()) for jpeg in stream.shown]
            facts.append(
                {"store": stream.address, "pictures": pictures, "image_size": stream.image_size}
                | {"excluded": stream.excluded, "duplicates": 0, "share": share}
                | {"passes": epochs * len(self) * share / pictures}
                | {"brightness": float(np.mean(grey)), "brightness_std": float(np.std(grey))}
            )
        return facts

    def jpeg(self, index: int) -> bytes:
        """A picture to look at: one of the first of its store, in proportion to where `index` lies in the store."""
        store, _ = self._place(int(np.searchsorted(self.starts, index, side="right")) - 1)
        first = int(self.starts[self._first_shard[store]])
        shown, pictures = self.streams[store].shown, int(self.streams[store].faces.sum())
        return shown[(index - first) * len(shown) // pictures]

    def _place(self, shard: int) -> tuple[int, int]:
        """Store of a shard, and its number in the store."""
        store = int(np.searchsorted(self._first_shard, shard, side="right")) - 1
        return store, shard - int(self._first_shard[store])

    def name(self, number: int) -> str:
        """Shard and position of a picture, for messages."""
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        store, own = self._place(shard)
        return f"{self.streams[store].path(own)}, picture {number - int(self.starts[shard]) + 1}"

    def read(self, shard: int, skip: int) -> Iterator[tuple[int, bytes]]:
        """Numbers and JPEG bytes of the pictures in a shard, without the first `skip`."""
        store, own = self._place(shard)
        for place, jpeg in self.streams[store].read(own, skip):
            yield int(self.starts[shard]) + place, jpeg

    def order(self, seed: int, part: int, epoch: int, lane: int, lanes: int) -> np.ndarray:
        """Shards of a part that reader `lane` of `lanes` reads in an epoch, in this order."""
        return np.random.default_rng((seed, part, epoch)).permutation(self.parts[part])[lane::lanes]

    def taken(self, samples: int) -> np.ndarray:
        """How many of a reader's first samples come from each part, int64 `[parts]`; what is left goes to the largest.

        A share is thus met to within one sample at any time, and a small store is not rounded away.
        """
        found = np.floor(samples * self.shares).astype(np.int64)
        found[self.shares.argmax()] += samples - found.sum()
        return found


class StreamedCrops(torch.utils.data.IterableDataset[dict[str, Any]]):
    """Micro-batches of crops from streamed stores, from step `first` to the one before `last`.

    Args:
        faces: The stores.
        plan: Batch sizes, process and seed.
        crop: Crops a picture with the sample's rng.
        patches: Length of the mask noise of a sample.
    """

    def __init__(
        self, faces: StreamedMixture, plan: BatchPlan, first: int, last: int, *, crop: RandomCrop, patches: int
    ) -> None:
        self.faces, self.plan, self.first, self.last = faces, plan, first, last
        self.crop, self.patches = crop, patches
        self.skipped: list[str] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """This worker's micro-batches; workers take turns."""
        info = torch.utils.data.get_worker_info()
        workers, worker = (1, 0) if info is None else (info.num_workers, info.id)
        begin, end = self.first * self.plan.accumulation, self.last * self.plan.accumulation
        turn = (begin + worker) % workers  # the loader always asks worker 0 first
        done = len(range(turn, begin, workers))
        lanes = self.plan.world * workers
        samples = self._samples(self.plan.rank * workers + turn, lanes, done * self.plan.micro_batch_size)
        for _ in range(begin + (turn - begin) % workers, end, workers):
            yield stacked([next(samples) for _ in range(self.plan.micro_batch_size)], self.skipped)

    def _samples(self, lane: int, lanes: int, position: int) -> Iterator[dict[str, Any]]:
        """One reader's endless stream of samples, from a position on: the parts in turn, shuffled block by block."""
        parts = range(len(self.faces.parts))
        block, skip = divmod(position, BLOCK)
        turns = self._turns(lane, block)
        before = self.faces.taken(block * BLOCK) + np.bincount(turns[:skip], minlength=len(parts))
        streams = [self._samples_of(part, lane, lanes, int(before[part])) for part in parts]
        while True:
            for part in turns[skip:].tolist():
                yield next(streams[part])
            block, skip = block + 1, 0
            turns = self._turns(lane, block)

    def _turns(self, lane: int, block: int) -> np.ndarray:
        """Which part each sample of a block of a reader's samples comes from."""
        counts = self.faces.taken((block + 1) * BLOCK) - self.faces.taken(block * BLOCK)
        turns = np.repeat(np.arange(len(counts)), counts)
        return np.random.default_rng((self.plan.seed, lane, block)).permutation(turns)

    def _samples_of(self, part: int, lane: int, lanes: int, position: int) -> Iterator[dict[str, Any]]:
        """One reader's endless stream of samples of a part, from a position on."""
        for epoch in count():
            shards = self.faces.order(self.plan.seed, part, epoch, lane, lanes)
            for start in range(0, len(shards), TOGETHER):
                hand = shards[start : start + TOGETHER]
                pictures = int(self.faces.faces[hand].sum())
                if position < pictures:
                    for number, held, skip in self._blocks(hand, position):
                        rng = np.random.default_rng((self.plan.seed, part, epoch, lane, start, number))
                        for place in rng.permutation(len(held))[skip:].tolist():
                            yield self._crop(held, place, epoch)
                position = max(position - pictures, 0)

    def _blocks(self, shards: np.ndarray, position: int) -> Iterator[tuple[int, list[tuple[int, bytes]], int]]:
        """Blocks that take an equal part of each of some shards, from the one that holds a position on.

        Yields:
            Number of the block, its pictures, and how many of its samples lie before the position.
        """
        counts = self.faces.faces[shards][:, None]
        blocks = -(-int(counts.sum()) * len(self.faces.parts) // BLOCK)
        bounds = counts * np.arange(blocks + 1) // blocks
        starts = bounds.sum(axis=0)
        first = int(np.searchsorted(starts, position, side="right")) - 1
        readers = [self.faces.read(shard, skip) for shard, skip in zip(shards, bounds[:, first].tolist(), strict=True)]
        for block in range(first, blocks):
            sizes = (bounds[:, block + 1] - bounds[:, block]).tolist()
            held = [picture for reader, size in zip(readers, sizes, strict=True) for picture in islice(reader, size)]
            yield block, held, max(position - int(starts[block]), 0)

    def _crop(self, held: list[tuple[int, bytes]], place: int, epoch: int) -> dict[str, Any]:
        """Crop one picture of a block; the next one takes the place of a picture that cannot be decoded."""
        rng = sample_rng(self.plan.seed, epoch, held[place][0])
        found = first_readable(
            chain(range(place, len(held)), range(place)),
            lambda at: face_views(held[at][1])[0],
            lambda at: self.faces.name(held[at][0]),
            self.skipped,
        )
        if found is None:
            raise UserError(f"no picture of a block can be decoded, such as {self.faces.name(held[place][0])}")
        taken, picture = found
        crop = self.crop(picture, rng)
        noise = rng.random(self.patches, dtype="float32")
        return {"name": self.faces.name(held[taken][0]), "images": crop, "noise": noise}


def _videos(file: pq.ParquetFile) -> dict[str, int]:
    """The videos of a shard and their numbers of rows."""
    counts = file.read(columns=["video"])["video"].value_counts()
    return {item["values"]: item["counts"] for item in counts.to_pylist()}

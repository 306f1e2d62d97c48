"""Streams a faces store that is larger than memory or on remote storage, shard by shard, without copying it.

An address is anything that fsspec understands: `s3://bucket/faces`, `hf://datasets/me/faces`, `file:///data/faces`.
Shards are permuted by (seed, epoch) and dealt to the workers of all processes. Each worker reads its shards with Arrow
and shuffles blocks of pictures. Its position follows from the step alone, so a resumed run continues at (shard, row)
and equals the uninterrupted one. With another number of processes or workers the shards are dealt differently, and
batches hold other pictures.

Shards are read with Arrow rather than by streaming with `datasets`, which would divide the shards among workers once
more and reads each shard from its beginning, while here a row group is found by its number.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import torch

from checkpoints.artifact import checked_header
from checkpoints.errors import UserError
from checkpoints.reading import decode_text, parse_json
from preprocessing.faces import DATA, HEADER, KIND, SCHEMA, FacesHeader
from preprocessing.views import face_views
from wildaffect.training.batches import BatchPlan, sample_rng
from wildaffect.training.images import RandomCrop, decode, first_readable, readable, stacked

BLOCK = 4096
"""Pictures, as JPEG, that a worker holds and shuffles at a time."""
SHOWN = 64
"""Pictures used for statistics and reconstructions."""


def is_address(faces: object) -> bool:
    """Whether a store is given by address rather than as a folder."""
    return "://" in str(faces)


class FacesStream:
    """A finished faces store at an address.

    Raises:
        UserError: It cannot be read, or is not a complete faces store.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.address)
            content = self._fs.cat_file(f"{self._root}/{HEADER}")
        except (OSError, ImportError, ValueError) as error:
            raise UserError(
                f"{self.address} cannot be read as a faces store ({type(error).__name__}: {error}): expected a "
                f"complete store with {HEADER}; s3:// and similar need their fsspec package (`pip install s3fs`)"
            ) from None
        where = f"{self.address}/{HEADER}"
        found = parse_json(decode_text(content, where), where)
        self.header = checked_header(found, where, kind=KIND, schema=SCHEMA, form=FacesHeader)
        self.shards = [f"{self._root}/{DATA}/{shard['name']}" for shard in self.header["shards"]]
        try:
            with ThreadPoolExecutor(16) as pool:
                self.faces = np.array([*pool.map(self._count, self.shards)], dtype=np.int64)
        except (OSError, ValueError) as error:  # Arrow's errors are ValueErrors
            raise UserError(f"a shard of {self.address} cannot be read: {error}") from None
        self.starts = np.cumsum(self.faces) - self.faces
        if not self.faces.sum():
            raise UserError(f"{self.address}: no picture with a face to train on")

    def _count(self, shard: str) -> int:
        """Number of pictures in a shard, from its footer."""
        with self._fs.open(shard) as file:
            return sum(_pictures_by_group(pq.read_metadata(file)))

    def __len__(self) -> int:
        return int(self.faces.sum())

    def workers(self, asked: int, world: int) -> int:
        """Number of workers for each of `world` processes: `asked`, or fewer if there are too few shards.

        Raises:
            UserError: There are fewer shards than processes.
        """
        if len(self.shards) < world:
            raise UserError(f"{self.address} has {len(self.shards)} shards, too few for {world} processes")
        most = len(self.shards) // world
        if asked > most:
            print(f"note: {self.address} has {len(self.shards)} shards: {most} worker(s) per process", flush=True)
        return min(asked, most)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of the store."""
        return {"faces_0": self.header["fingerprint"]}

    @property
    def synthetic(self) -> bool:
        """Whether the store declares its faces to be drawn."""
        return bool(self.header.get("synthetic", False))

    @cached_property
    def videos(self) -> list[str]:
        """Names of the videos (not of single pictures) that the pictures come from."""
        names: Counter[str] = Counter()
        for shard in self.shards:
            with self._fs.open(shard) as file:
                counts = pq.ParquetFile(file).read(columns=["video"])["video"].value_counts()
                names.update({item["values"]: item["counts"] for item in counts.to_pylist()})
        return sorted(name for name, count in names.items() if count > 1)

    def statistics(self, epochs: float) -> list[dict[str, Any]]:
        """Facts about the store before training, in the same form as those of a mixture."""
        facts = {"store": self.address, "pictures": len(self), "image_size": self.header["image_size"]}
        facts |= {"excluded": 0, "duplicates": 0, "share": 1.0, "passes": epochs}
        grey = [float(decode(jpeg).float().mean()) for jpeg in self._first]
        return [facts | {"brightness": float(np.mean(grey)), "brightness_std": float(np.std(grey))}]

    @cached_property
    def _first(self) -> list[bytes]:
        """The first readable pictures of the store, to look at."""
        return [jpeg for _, jpeg in islice(self.read(np.arange(len(self.shards)), 0), SHOWN) if readable(jpeg)]

    def jpeg(self, index: int) -> bytes:
        """One of the first pictures of the store: `index` counts all pictures and is scaled to those."""
        return self._first[index * len(self._first) // len(self)]

    def name(self, number: int) -> str:
        """Shard and position of a picture, for messages."""
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return f"{self.shards[shard]}, picture {number - int(self.starts[shard]) + 1}"

    def read(self, shards: np.ndarray, skip: int) -> Iterator[tuple[int, bytes]]:
        """Numbers and JPEG bytes of the pictures in these shards, in turn, without the first `skip`."""
        for shard in shards.tolist():
            if skip >= self.faces[shard]:
                skip -= int(self.faces[shard])
                continue
            number = int(self.starts[shard])
            with self._fs.open(self.shards[shard]) as remote:
                file = pq.ParquetFile(remote)
                for group, count in enumerate(_pictures_by_group(file.metadata)):
                    if skip >= count:  # without fetching it
                        skip, number = skip - count, number + count
                        continue
                    images = file.read_row_group(group, columns=["image.bytes"], use_threads=False)["image"]
                    jpegs = [image["bytes"].as_py() for image in images.combine_chunks() if image["bytes"].is_valid]
                    for jpeg in jpegs[skip:]:
                        yield number + skip, jpeg
                        number += 1
                    number, skip = number + skip, 0

    def order(self, seed: int, epoch: int, lane: int, lanes: int) -> np.ndarray:
        """Shards that reader `lane` of `lanes` reads in an epoch, in this order."""
        return np.random.default_rng((seed, epoch)).permutation(len(self.shards))[lane::lanes]


class StreamedCrops(torch.utils.data.IterableDataset[dict[str, Any]]):
    """Micro-batches of crops from a streamed store, from step `first` to the one before `last`.

    Args:
        faces: The store.
        plan: Batch sizes, process and seed.
        crop: Crops a picture with the sample's rng.
        patches: Length of the mask noise of a sample.
    """

    def __init__(
        self, faces: FacesStream, plan: BatchPlan, first: int, last: int, *, crop: RandomCrop, patches: int
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
        """One reader's endless stream of samples, from a position on."""
        epoch = 0
        while True:
            shards = self.faces.order(self.plan.seed, epoch, lane, lanes)
            count = int(self.faces.faces[shards].sum())
            if position >= count:
                position -= count
                epoch += 1
                continue
            block, skip = divmod(position, BLOCK)
            pictures = self.faces.read(shards, block * BLOCK)
            while held := list(islice(pictures, BLOCK)):
                order = np.random.default_rng((self.plan.seed, epoch, lane, block)).permutation(len(held))
                for place in order[skip:].tolist():
                    yield self._crop(held, place, epoch)
                block, skip = block + 1, 0
            position, epoch = 0, epoch + 1

    def _crop(self, held: list[tuple[int, bytes]], place: int, epoch: int) -> dict[str, Any]:
        """Crop one picture of a block; the next one takes the place of a picture that cannot be decoded."""
        rng = sample_rng(self.plan.seed, epoch, held[place][0])
        found = first_readable(
            (*range(place, len(held)), *range(place)),
            lambda at: face_views(held[at][1])[0],
            lambda at: self.faces.name(held[at][0]),
            self.skipped,
        )
        if found is None:
            raise UserError(f"no picture of a block of {self.faces.address} can be decoded")
        taken, picture = found
        crop = self.crop(picture, rng)
        noise = rng.random(self.patches, dtype="float32")
        return {"name": self.faces.name(held[taken][0]), "images": crop, "noise": noise}


def _pictures_by_group(metadata: Any) -> list[int]:
    """Number of pictures in each row group of a shard."""
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    column = paths.index("image.path")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [group.num_rows - group.column(column).statistics.null_count for group in groups]

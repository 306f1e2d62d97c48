"""The faces store: aligned face pictures of every frame, as Parquet shards with a JSON header.

    <store>/
        data/<shard>.parquet    one per video, or per some hundred short videos or pictures
        faces.json              written last: the store is complete
        report.html             the data sheet
        .arrow/                 memory-mapped copy that `datasets` makes on first use; may be deleted at any time

A row is one frame of one subject. The main subject (`subject == ""`) has a row for every frame of its video, any other
subject from its first to its last frame; one that is listed and never found, for every frame. A frame without a face is
a row whose `image` is null.

The shards carry the feature types of Hugging Face `datasets`, so `load_dataset("parquet", data_files="STORE/data/*")`
opens them in any other program.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from checkpoints.artifact import Header, atomic_file, combine_hashes, read_header
from checkpoints.content import changed_error, refuse_changed
from checkpoints.errors import UserError
from checkpoints.forms import Count, Name, Size
from checkpoints.framing import Framing, FramingForm
from preprocessing.align import in_aligned
from preprocessing.copies import copy_folder, mapped_copy, record, remove_if_changed

ViewName = Literal[
    "full",
    "eyes_mouth",
    "eyes",
    "mouth",
    "nose",
    "eyes_mouth_landmarks",
    "eyes_landmarks",
    "mouth_landmarks",
    "nose_landmarks",
]
"""The parts of a face that an encoder can look at; `preprocessing.views` cuts them out."""

KIND = "faces store"
SCHEMA = 2
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
HEADER = "faces.json"
DATA = "data"

FEATURES: dict[str, dict[str, Any]] = {
    # id of the video (or picture); for Aff-Wild2 the name of the file without its ending
    "video": {"dtype": "string", "_type": "Value"},
    "subject": {"dtype": "string", "_type": "Value"},  # "" is the main subject
    "frame": {"dtype": "int32", "_type": "Value"},  # 1-based, as Aff-Wild2 counts
    "time_s": {"dtype": "float64", "_type": "Value"},  # presentation time in seconds; NaN if the source has no clock
    "image": {"decode": False, "_type": "Image"},  # JPEG bytes, square, RGB; null where there is no face
    # x1, y1, x2, y2 in source pixels; null if unknown
    "box": {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "List"},
    # left eye, right eye, nose, left and right mouth corner (as seen in the picture): x, y in source pixels
    "landmarks": {"feature": {"dtype": "float32", "_type": "Value"}, "length": 10, "_type": "List"},
    # the detector's confidence in 0..1; null where it did not see the face itself
    "score": {"dtype": "float32", "_type": "Value"},
    "interpolated": {"dtype": "bool", "_type": "Value"},  # box and landmarks were bridged between two detections
}


class Shard(TypedDict):
    """A shard in the header of a store."""

    name: Name
    rows: Count
    bytes: Count
    hash: str
    faces: NotRequired[Count]


class Problem(TypedDict):
    """A source that could not be read in full."""

    source: str
    problem: str


class FacesHeader(Header):
    """Header of a faces store."""

    image_size: Size
    framing: FramingForm
    rows: Count
    shards: list[Shard]
    fingerprint: str
    problems: list[Problem]
    synthetic: NotRequired[bool]


def read_store_header(store: Path) -> FacesHeader:
    """Header of a finished store.

    Raises:
        UserError: There is none.
    """
    return read_header(store, HEADER, kind=KIND, schema=SCHEMA, form=FacesHeader)


@dataclass(frozen=True)
class Sequence:
    """The frames of one subject of one video: rows `start` to `start + length - 1` of the store.

    Attributes:
        video: Id of the video.
        subject: "" for the main subject.
        start: First row in the store.
        length: Number of rows; frames are consecutive.
        first_frame: 1-based frame number of the first row.
    """

    video: str
    subject: str
    start: int
    length: int
    first_frame: int

    @property
    def id(self) -> str:
        """`video`, or `video_subject`: the name of the subject's label file and feature cache."""
        return f"{self.video}_{self.subject}" if self.subject else self.video


class FacesStore:
    """A finished faces store, open for reading.

    The index columns are read without the pictures; pictures are memory mapped on first use, so that any number of
    processes share one copy and none holds the store in memory. A store can be pickled to worker processes.

    Attributes:
        path: Directory of the store.
        header: Content of `faces.json`.
        fingerprint: Identifies the rows of the store.
        copy_folder: Where the memory-mapped copy is kept.
        image_size: Side of the pictures in pixels.
        framing: Where the landmarks lie in the pictures.
        video, subject: Object arrays of strings [N].
        frame: 1-based frame numbers, int32 [N].
        time_s: Presentation times in seconds, float64 [N]; NaN where the source has no clock.
        valid: Whether the row has a picture, bool [N].
    """

    def __init__(self, path: str | Path):
        """Open a store.

        Raises:
            UserError: The store is missing, empty, incomplete, damaged or of an unknown schema.
        """
        self.path = Path(path)
        self.header = read_store_header(self.path)
        self.fingerprint: str = self.header["fingerprint"]
        self.image_size: int = self.header["image_size"]
        self.framing = Framing.from_dict(self.header["framing"])
        self._shards = [self.path / DATA / shard["name"] for shard in self.header["shards"]]
        self._ends = np.cumsum([shard["rows"] for shard in self.header["shards"]])
        self.check()
        if not self.header["rows"]:
            raise UserError(f"{self.path} is an empty faces store: its sources held no readable frame")
        self.copy_folder = copy_folder(self.path, self.fingerprint)
        remove_if_changed(self.copy_folder)  # here, before there are workers that read it
        self._read_index()
        if len(self) != self.header["rows"]:
            raise changed_error(self.path / DATA, self.path / HEADER)

    def check(self, *, again: bool = False) -> None:
        """Compare every shard with the header, by hashes that are remembered until a file changes (or `again`).

        Raises:
            UserError: Names the first shard that was changed.
        """
        expected = {shard["name"]: shard["hash"] for shard in self.header["shards"]}
        if combine_hashes(expected) != self.fingerprint:
            raise UserError(f"{self.path / HEADER} was changed: its fingerprint is not that of its shards; restore it")
        refuse_changed(self.path / DATA, expected, f"../{HEADER}", again=again)

    def _read_index(self) -> None:
        names = ["video", "subject", "frame", "time_s", "image.path"]
        # Not `read_table`, which reads the pictures too when it is asked for a field beside them.
        index = pa.concat_tables(pq.ParquetFile(path).read(columns=names) for path in self._shards)

        def strings(name: str) -> np.ndarray:
            encoded = index.column(name).combine_chunks().dictionary_encode()
            return np.array(encoded.dictionary.to_pylist(), dtype=object)[encoded.indices.to_numpy()]

        self.video = strings("video")
        self.subject = strings("subject")
        self.frame: np.ndarray = index.column("frame").to_numpy()
        self.time_s: np.ndarray = index.column("time_s").to_numpy()
        self.valid: np.ndarray = pc.struct_field(index.column("image"), "path").is_valid().to_numpy()

    def __len__(self) -> int:
        return len(self.frame)

    def sequences(self) -> list[Sequence]:
        """The sequences of the store in its order; together they cover every row once.

        Raises:
            UserError: Two have one id, such as subject 2 of `clip` and a video `clip_2`.
        """
        return list(self._sequences)

    def spans(self) -> dict[str, tuple[int, int]]:
        """First and last frame of each sequence, by id."""
        return {s.id: (s.first_frame, s.first_frame + s.length - 1) for s in self._sequences}

    @cached_property
    def _sequences(self) -> list[Sequence]:
        same = (self.video[1:] == self.video[:-1]) & (self.subject[1:] == self.subject[:-1])
        bounds = [0, *(np.flatnonzero(~same) + 1).tolist(), len(self)]
        found = [
            Sequence(self.video[start], self.subject[start], start, end - start, int(self.frame[start]))
            for start, end in pairwise(bounds)
        ]
        for id, count in Counter(sequence.id for sequence in found).items():
            if count > 1:
                raise UserError(f"{self.path}: {count} sequences are called {id!r}: rename one of the files")
        return found

    def jpeg(self, row: int) -> bytes | None:
        """JPEG bytes of a row's picture, None if it has none."""
        return self._column("image", row, "bytes")

    def landmarks(self, row: int) -> np.ndarray | None:
        """Five points (x, y) in source pixels, float32 [5, 2]; None if there are none."""
        points = self._column("landmarks", row)
        return None if points is None else np.asarray(points, dtype=np.float32).reshape(5, 2)

    def picture_landmarks(self, row: int) -> np.ndarray | None:
        """Five points (x, y) in pixels of the row's aligned picture, float32 [5, 2]; None if there are none."""
        return self._in_picture(self.landmarks(row))

    def pictures(self, start: int, length: int) -> Iterator[tuple[bytes | None, np.ndarray | None]]:
        """The `jpeg` and the `picture_landmarks` of each of `length` consecutive rows.

        The shards are read one row group at a time. Unlike `jpeg`, this makes no memory-mapped copy.
        """
        for path, row, count in self.parts(start, length):
            end, first = row + count, 0
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    last = first + file.metadata.row_group(group).num_rows
                    if first < end and row < last:
                        table = file.read_row_group(group, columns=["image.bytes", "landmarks"], use_threads=False)
                        wanted = table.slice(max(row - first, 0), min(end, last) - max(row, first))
                        for image, points in zip(wanted["image"], wanted["landmarks"], strict=True):
                            found = np.array(points.as_py(), np.float32).reshape(5, 2) if points.is_valid else None
                            yield image["bytes"].as_py() if image.is_valid else None, self._in_picture(found)
                    first = last

    def parts(self, start: int, length: int) -> Iterator[tuple[Path, int, int]]:
        """The shards that hold `length` consecutive rows: the path of each, the first row in it, and how many."""
        end = min(start + length, len(self))
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while start < end:
            first = int(self._ends[shard - 1]) if shard else 0
            count = min(end, int(self._ends[shard])) - start
            yield self._shards[shard], start - first, count
            start, shard = start + count, shard + 1

    def _in_picture(self, points: np.ndarray | None) -> np.ndarray | None:
        """Where landmarks in source pixels lie in the aligned picture; None if there are none or all coincide."""
        if points is None or (points == points[0]).all():
            return None
        return in_aligned(points, self.image_size, self.framing.for_alignment)

    def _column(self, name: str, row: int, field: str | None = None) -> Any:
        starts, chunks = self._table[name]
        chunk = int(np.searchsorted(starts, row, side="right")) - 1
        value = chunks[chunk][row - int(starts[chunk])]
        if not value.is_valid:
            return None
        return (value[field] if field else value).as_py()

    @cached_property
    def _table(self) -> dict[str, tuple[np.ndarray, list[pa.Array]]]:
        """Memory-mapped columns as (first row of each chunk, chunks).

        Raises:
            UserError: The copy that is mapped cannot be written.
        """
        mapped = mapped_copy(self.copy_folder, self._shards)
        columns = {}
        for name in ("image", "landmarks"):
            chunks = mapped.data.column(name).chunks
            columns[name] = (np.cumsum([0, *map(len, chunks)])[:-1], chunks)
        return columns

    def keep(self, name: str, content: bytes) -> None:
        """Keep a file that was computed from the store beside its copy, in `copy_folder`."""
        with atomic_file(self.copy_folder / name) as temporary:
            temporary.write_bytes(content)
        record(self.copy_folder)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the Arrow files itself.
        return {name: value for name, value in self.__dict__.items() if name != "_table"}


def pictures_by_group(metadata: pq.FileMetaData) -> list[int]:
    """Number of pictures in each row group of a shard."""
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    column = paths.index("image.path")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [group.num_rows - group.column(column).statistics.null_count for group in groups]


def have_pictures(shard: Path) -> np.ndarray:
    """Whether each row of a shard has a picture, bool [N]."""
    # Not `read_table`, which reads the pictures too when it is asked for a field beside them.
    return pc.struct_field(pq.ParquetFile(shard).read(columns=["image.path"])["image"], "path").is_valid().to_numpy()


def read_jpegs(places: Iterable[tuple[Path, int]]) -> Iterator[bytes]:
    """Pictures by shard and row, ordered by both. Only the row groups that hold them are read."""
    for path, rows in groupby(places, key=lambda place: place[0]):
        file, images, group, first, end = pq.ParquetFile(path), None, -1, 0, 0
        for _, row in rows:
            while row >= end:
                group, images, first = group + 1, None, end
                end += file.metadata.row_group(group).num_rows
            if images is None:
                images = file.read_row_group(group, columns=["image.bytes"])["image"]
            yield images[row - first]["bytes"].as_py()

"""What is kept beside a faces store to read it quickly: the memory-mapped copy that `datasets` makes, and the like.

`copy.json` lists the hashes of these files. If one of them was changed, all are removed, and made again when needed.
"""

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import datasets
from datasets.exceptions import DatasetGenerationError
from pyarrow.dataset import ParquetFragmentScanOptions

from checkpoints.artifact import read_sealed, write_sealed
from checkpoints.content import content_hashes
from checkpoints.errors import UserError

CACHE = ".arrow"
"""Folder of the copy; in the cache of `datasets` if the store cannot be written."""
RECORD = "copy.json"


class Record(TypedDict):
    """Hashes of the files by their paths below the folder."""

    files: dict[str, str]


def copy_folder(store: Path, fingerprint: str) -> Path:
    """Where the copy of a store is kept."""
    if os.access(store, os.W_OK):
        return store / CACHE
    return Path(datasets.config.HF_DATASETS_CACHE) / "wildaffect" / fingerprint[:16]


def remove_if_changed(folder: Path) -> None:
    """Remove what is kept beside a store if any of it is not as it was made."""
    if not (folder / RECORD).exists():
        return
    try:
        recorded = read_sealed(folder / RECORD, Record)["files"]
        whole = content_hashes(folder, sorted(recorded)) == recorded
    except UserError:
        whole = False
    if not whole:
        print(f"{folder} was damaged: it is made again", flush=True)
        shutil.rmtree(folder, ignore_errors=True)


def record(folder: Path) -> None:
    """Record the hashes of the files that are kept beside a store, if any of them is new."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    names = sorted(name for name in files if not name.endswith((RECORD, ".lock", ".tmp")) and ".incomplete" not in name)
    known = read_sealed(folder / RECORD, Record)["files"] if (folder / RECORD).exists() else {}
    if not known.keys() >= set(names):
        write_sealed(folder / RECORD, {"files": content_hashes(folder, names)})


def mapped_copy(folder: Path, shards: Sequence[Path]) -> Any:
    """The memory-mapped copy (a `datasets.Dataset`) of the rows in some shards, which is made if it is missing.

    Raises:
        UserError: It cannot be written.
    """
    try:
        with _quiet():
            mapped = datasets.load_dataset(
                "parquet",
                data_files=[glob.escape(str(path.resolve())) for path in shards],
                split="train",
                cache_dir=str(folder),
                # Row group by row group: otherwise whole shards are read ahead, and a long video fills memory.
                fragment_scan_options=ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True),
            )
        record(folder)
    except (OSError, DatasetGenerationError) as error:
        reason = error.__cause__ or error
        raise UserError(f"the copy of a faces store cannot be written to {folder}: {reason}: free some space") from None
    return mapped


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of `datasets` inside."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()

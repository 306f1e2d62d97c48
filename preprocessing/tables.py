"""Pictures in tables: Parquet and Arrow files, and Hugging Face data sets."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from checkpoints.errors import UserError, first_words
from preprocessing.items import TABLE_ROWS, Item
from wildaffect.tasks.split_words import split_name

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png")


def table_items(path: Path, name: str) -> Iterator[Item]:
    """Split a table into parts of `TABLE_ROWS` rows; a table without pictures (labels, for example) has none."""
    try:
        schema, rows = _shape(path)
    except UserError:
        # The run reports it as a problem, like any other unreadable file.
        yield Item(path.stem, path, name, "table", rows=(0, 0))
        return
    if image_column(schema) is not None:
        for start in range(0, rows, TABLE_ROWS):
            part = (start, min(start + TABLE_ROWS, rows))
            yield Item(path.stem, path, name, "table", path.stat().st_size, rows=part)


def hub_items(name: str) -> Iterator[Item]:
    """Every split that `datasets.load_dataset(name)` finds, as Arrow files in its cache.

    Raises:
        UserError: It cannot be loaded, or has no pictures.
    """
    try:
        splits = datasets.load_dataset(name)
    except Exception as error:
        # `datasets` lets through any error of the network, the file system or a broken data set.
        raise UserError(f"--source hf:{name} cannot be loaded by `datasets`: {error}") from None
    for split, table in splits.items():
        if image_column(table.data.schema) is None:
            raise UserError(f"--source hf:{name} has no column of pictures; its columns are {table.column_names}")
        for file in table.cache_files:
            path = Path(file["filename"])
            yield from table_items(path, f"{split}/{path.name}")


def image_column(schema: pa.Schema) -> str | None:
    """The column that holds encoded pictures, as bytes or as a struct with `bytes`."""
    for name in [*IMAGE_COLUMNS, *schema.names]:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return name
            if name in IMAGE_COLUMNS and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
                return name
    return None


def table_pictures(item: Item) -> Iterator[Item]:
    """The rows of a part of a table, as pictures.

    Raises:
        UserError: The file cannot be read.
    """
    column = image_column(_shape(item.path)[0])
    if column is None:
        raise UserError("has no column of pictures")
    row = item.rows[0]
    for batch in _readable(_batches(item.path, [column], *item.rows)):
        for value in batch.column(0).to_pylist():
            data, path = (value["bytes"], value.get("path")) if isinstance(value, dict) else (value, None)
            name = f"{item.name}#{row}"
            if data is None and path:  # how `datasets` stores folders of pictures
                yield Item(row_id(item, row), item.path.parent / path, name, "picture")
            else:
                yield Item(row_id(item, row), item.path, name, "picture", data=data or b"")
            row += 1


def _readable(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(error) from None


def row_id(item: Item, row: int) -> str:
    """Id of a row in the store: table and row number, because names inside tables need not be unique."""
    return f"{item.video}_{row:07d}"


def table_labels(item: Item) -> pa.Table:
    """The columns of a part of a table except the pictures, plus `video` and `frame`, which identify the rows.

    Class numbers are replaced by names if Hugging Face `datasets` stored them. If the file name says which split it is
    (`train.parquet`, `validation-00000-of-00001.parquet`), a column `split` is added, unless there is one.
    """
    schema, _ = _shape(item.path)
    names = [field.name for field in schema if field.name not in (image_column(schema), "video", "frame")]
    table = pa.Table.from_batches(list(_readable(_batches(item.path, names, *item.rows))))
    for name, classes in _class_names(schema).items():
        if name in names:
            named = [classes[k] if k is not None and 0 <= k < len(classes) else None for k in table[name].to_pylist()]
            table = table.set_column(names.index(name), name, pa.array(named, pa.string()))
    table = table.append_column("video", pa.array([row_id(item, row) for row in range(*item.rows)]))
    table = table.append_column("frame", pa.array([1] * len(table)))
    if names and "split" not in names and (split := _split(item.name)):
        table = table.append_column("split", pa.array([split] * len(table)))
    return table


def _split(name: str) -> str | None:
    """The split named at the start of a table's name or by its folder (but not by the source itself)."""
    *folders, file = name.lower().split("/")
    return split_name(re.split(r"[-_.]", file)[0]) or split_name("".join(folders[1:][-1:]))


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Class names of the columns that `datasets` marks as class labels."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: f["names"] for name, f in features.items() if f.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    numbers = [field.name for field in schema if pa.types.is_integer(field.type)]
    return {
        name: names
        for name, names in found.items()
        if name in numbers and isinstance(names, list) and all(isinstance(word, str) for word in names)
    }


def _shape(path: Path) -> tuple[pa.Schema, int]:
    """Schema and number of rows of a table."""
    try:
        if path.suffix.lower() == ".parquet":
            file = pq.ParquetFile(path)
            return file.schema_arrow, file.metadata.num_rows
        table = _arrow(path)
        return table.schema, table.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> UserError:
    return UserError(f"cannot be read as a table: {first_words(error)}")


def _arrow(path: Path) -> pa.Table:
    """Memory-map an Arrow file in stream format (which `datasets` writes) or file format."""
    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_file(source).read_all()


def _batches(path: Path, columns: list[str], start: int, end: int) -> Iterator[pa.RecordBatch]:
    """Rows `start` to `end` of some columns, in small batches."""
    if path.suffix.lower() != ".parquet":
        yield from _arrow(path).select(columns).slice(start, end - start).to_batches(max_chunksize=64)
        return
    # Page by page: otherwise a row group, which may be the whole table, is in memory at once.
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    at = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if at + rows <= start:
            at += rows
            continue
        for batch in file.iter_batches(64, row_groups=[group], columns=columns):
            low, high = max(start - at, 0), min(end - at, len(batch))
            if low < high:
                yield batch.slice(low, high - low)
            at += len(batch)
            if at >= end:
                return

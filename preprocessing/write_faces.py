"""Writes a faces store: its shards one by one, and last the header that declares it complete."""

import json
import shutil
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from checkpoints.artifact import atomic_file, combine_hashes, write_header
from checkpoints.content import content_hashes
from checkpoints.framing import UNKNOWN, Framing
from preprocessing.copies import CACHE
from preprocessing.faces import DATA, FEATURES, HEADER, KIND, SCHEMA, pictures_by_group

ROW_GROUP = 256


def arrow_schema() -> pa.Schema:
    """The Arrow schema of a shard; its metadata hold the feature types for `datasets`."""

    def arrow_type(feature: dict[str, Any]) -> pa.DataType:
        if feature["_type"] == "Image":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        if feature["_type"] == "List":
            return pa.list_(arrow_type(feature["feature"]), feature["length"])
        return pa.type_for_alias(feature["dtype"])

    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    return pa.schema([(name, arrow_type(feature)) for name, feature in FEATURES.items()], metadata=metadata)


def write_shard(store: Path, shard_name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write one shard atomically with `ROW_GROUP` rows in memory at a time; the same rows give the same bytes.

    Args:
        store: Directory of the store; made if missing.
        shard_name: File name without ending. Shards are read in the order of their names.
        rows: Mappings with the columns of `FEATURES`, grouped by video and subject and ordered by frame. `image` is
            JPEG bytes, a mapping that holds them as `bytes`, or None; `box`, `landmarks`, `score` and `interpolated`
            may be missing.

    Returns:
        The path of the shard.
    """
    schema = arrow_schema()
    path = Path(store) / DATA / f"{shard_name}.parquet"
    iterator = iter(rows)
    with (
        atomic_file(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=["video", "subject"]) as writer,
    ):
        while chunk := [_normal_row(row) for row in islice(iterator, ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema), row_group_size=ROW_GROUP)
    return path


def _normal_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the optional columns and name the picture: a reader learns from `image.path` alone whether there is one."""
    if unknown := row.keys() - FEATURES.keys():
        raise ValueError(f"a row of a faces store has no column {sorted(unknown)}")
    image = row["image"]
    jpeg = image["bytes"] if isinstance(image, Mapping) else image
    time_s = row["time_s"]
    return {
        **row,
        "image": None if jpeg is None else {"bytes": jpeg, "path": f"{row['frame']:05d}.jpg"},
        "time_s": float("nan") if time_s is None else time_s,
        "interpolated": bool(row.get("interpolated", False)),
    }


def finish_store(
    store: Path,
    *,
    made_by: str,
    config: dict[str, Any],
    image_size: int,
    problems: list[dict[str, Any]],
    framing: Framing = UNKNOWN,
    hashes: dict[str, str] | None = None,
    **fields: Any,
) -> None:
    """Declare a store complete: write `faces.json` with the name, counts and hash of every shard and a fingerprint.

    Args:
        store: The store; every `data/*.parquet` in it belongs to it.
        made_by: The command that made it.
        config: Its resolved configuration.
        image_size: Side of the pictures in pixels.
        problems: One mapping per source that could not be read in full (`source`, `problem`, ...).
        framing: How the faces are framed.
        hashes: Hashes of all shards by file name, if they are known.
        fields: Further fields of the header.
    """
    store = Path(store)
    shutil.rmtree(store / CACHE, ignore_errors=True)  # the copy of a store that was changed
    if hashes is None:
        hashes = content_hashes(store / DATA, [path.name for path in (store / DATA).glob("*.parquet")])
    shards = []
    for name in sorted(hashes):
        path = store / DATA / name
        metadata = pq.read_metadata(path)
        counts = {"rows": metadata.num_rows, "faces": sum(pictures_by_group(metadata))}
        shards.append({"name": name, **counts, "bytes": path.stat().st_size, "hash": hashes[name]})
    write_header(
        store,
        HEADER,
        kind=KIND,
        schema=SCHEMA,
        made_by=made_by,
        config=config,
        parents={},
        image_size=image_size,
        framing=framing.as_dict(),
        rows=sum(shard["rows"] for shard in shards),
        shards=shards,
        fingerprint=combine_hashes(hashes),
        problems=problems,
        **fields,
    )

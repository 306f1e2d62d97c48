"""What all artifacts on disk have in common: atomic files, a JSON header written last, fingerprints."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

from safetensors import SafetensorError

from checkpoints.errors import UserError
from checkpoints.forms import checked
from checkpoints.reading import parse_json, read_text, shown


class Header(TypedDict):
    """What every header holds; each kind of artifact adds fields that its reader needs."""

    kind: str
    schema: int
    made_by: str
    config: dict[str, Any]
    parents: dict[str, str]


H = TypeVar("H", bound=Header)
T = TypeVar("T")

SEAL = "seal"
"""Field of a JSON file of ours that holds the hash of all its other fields."""
_SEALED = "sha256:"
TEMPORARY = f".*.{'[0-9a-f]' * 8}.tmp"
"""Pattern of the names of files and folders that are being written."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write to; it is renamed into place on success and removed on failure.

    So a reader sees the whole file or none, no matter when the writer is killed. What a killed writer leaves is removed
    by the next one to lock the directory (:mod:`checkpoints.lock`).

    Raises:
        OSError: The file cannot be written; `filename` is `path`, where the system did not name a file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # safetensors writes files that only their owner can read
        temporary.replace(path)
    except SafetensorError as error:  # it passes on the number of the system's error in its text alone
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def temporary_sibling(path: Path) -> Path:
    """A name of its own beside `path`, matched by `TEMPORARY`."""
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON with sorted keys, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is missing or is not JSON.
    """
    return parse_json(read_text(path), path)


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its seal, by which :func:`check_seal` notices any later change."""
    write_json(path, {**content, SEAL: _seal_of(content)})


def read_sealed(path: Path, form: type[T]) -> T:
    """Read a JSON object of a form.

    Raises:
        UserError: It is missing, has another form, or was changed.
    """
    content = checked(read_json(path), form, path)
    check_seal(cast(Mapping[str, Any], content), path)
    return content


def check_seal(content: Mapping[str, Any], where: object) -> None:
    """Check a JSON object that :func:`write_sealed` wrote; one of an older version has no seal.

    Raises:
        UserError: The seal is not that of the other fields.
    """
    values = [value for value in content.values() if isinstance(value, str)]
    is_sealed = SEAL in content or any(value.startswith(_SEALED) for value in values)  # under a damaged name
    if is_sealed and content.get(SEAL) != _seal_of(content):
        raise UserError(f"{where} was changed after it was written: restore the file, or make the artifact again")


def _seal_of(content: Mapping[str, Any]) -> str:
    """Hash of all fields of a JSON object but the seal."""
    plain = json.loads(json.dumps({name: value for name, value in content.items() if name != SEAL}))
    return _SEALED + hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combine_hashes(hashes: dict[str, str]) -> str:
    """Fingerprint of several files: SHA-256 over their sorted (file name, file hash) pairs."""
    digest = hashlib.sha256()
    for name in sorted(hashes):
        digest.update(f"{name}\0{hashes[name]}\n".encode())
    return digest.hexdigest()


def fingerprint(paths: Path | Iterable[Path]) -> str:
    """Fingerprint of one or several files: of their bytes and names, not their folders."""
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    return combine_hashes({file.name: file_hash(file) for file in files})


def write_header(
    directory: Path,
    name: str,
    *,
    kind: str,
    schema: int,
    made_by: str,
    config: dict[str, Any],
    parents: dict[str, str],
    **fields: Any,
) -> None:
    """Write an artifact's JSON header. It marks the artifact as complete, so write it last.

    Args:
        directory: The artifact.
        name: File name of the header, e.g. `faces.json`.
        kind: What the artifact is, e.g. `faces store`.
        schema: Version of the format; readers refuse others.
        made_by: The command that made it, e.g. `preprocessing/run.py`.
        config: The resolved configuration (no absolute paths, no times).
        parents: Fingerprint of each artifact it was made from, by name.
        fields: Anything else that readers of this kind need.
    """
    header = {
        "kind": kind,
        "schema": schema,
        "made_by": f"wildaffect {version('wildaffect')} {made_by}",
        "config": config,
        "parents": parents,
        **fields,
    }
    write_sealed(Path(directory) / name, header)


def read_header(directory: Path, name: str, *, kind: str, schema: int, form: type[H]) -> H:
    """Read an artifact's header, which must have the `form` of its kind.

    Raises:
        UserError: The directory is missing, incomplete, another kind of artifact, or has an unknown schema; a field is
            missing or mistyped; or the header was changed.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory} does not exist; expected a {kind} directory")
    if not (directory / name).is_file():
        raise UserError(f"{directory} holds no complete {kind}: it has no {name} (let its command finish)")
    return checked_header(read_json(directory / name), directory / name, kind=kind, schema=schema, form=form)


def checked_header(header: Any, where: object, *, kind: str, schema: int, form: type[H]) -> H:
    """The content of a header that has been read; see :func:`read_header`."""
    found = header.get("kind") if isinstance(header, dict) else None
    if found != kind:
        named = found if isinstance(found, str) and found else "thing of unknown kind"
        raise UserError(f"{where} describes a {named[:60]}, not a {kind}")
    if type(header.get("schema")) is not int or header["schema"] != schema:
        raise UserError(
            f"{where} has schema {shown(header.get('schema'))}; this version reads schema {schema}: make the {kind} "
            f"again with this version, or use the version that made it ({shown(header.get('made_by'))})"
        )
    checked(header, form, where)  # first, because it says more
    check_seal(header, where)
    return cast(H, header)

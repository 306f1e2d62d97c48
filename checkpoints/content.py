"""Whether files still hold what an artifact's header says: hashes of their content, computed once per change.

A hash is remembered together with the file's size and time of change in the user's cache folder, so a large store is
hashed once and not at every start. `wildaffect doctor --verify` hashes everything again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from checkpoints.artifact import file_hash
from checkpoints.errors import UserError

_known: dict[Path, tuple[int, dict[str, list[object]]]] = {}
"""For each folder, how many bytes of its memory have been read, and what they say."""


def content_hashes(folder: Path, names: list[str], *, again: bool = False) -> dict[str, str]:
    """SHA-256 of some files of one folder, by name, remembered by their sizes and times of change.

    Args:
        folder: Where the files are.
        names: The files.
        again: Hash them even if they seem unchanged.

    Raises:
        UserError: A file is missing or cannot be read.
    """
    memory = _recalled(folder)
    hashes, new = {}, []
    for name in names:
        try:
            status = (folder / name).stat()
            entry = memory.get(name)
            if again or entry is None or entry[:2] != [status.st_size, status.st_mtime_ns]:
                found = [status.st_size, status.st_mtime_ns, file_hash(folder / name)]
                if found != entry:
                    entry = memory[name] = found
                    new.append([name, *found])
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read: {error.strerror}") from None
        hashes[name] = str(entry[2])
    if new:
        _remember(folder, new)
    return hashes


def memory_of(folder: Path) -> Path:
    """Where the hashes of a folder's files are remembered: outside the artifact, whose bytes stay as they are."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "wildaffect" / "hashes" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]}.jsonl"


def _recalled(folder: Path) -> dict[str, list[object]]:
    """What is remembered of a folder's files: size, time of change and hash by name; reads the lines that are new."""
    place = folder.resolve()
    read, memory = _known.get(place, (0, {}))
    with suppress(OSError), memory_of(folder).open("rb") as file:
        if file.seek(0, os.SEEK_END) < read:  # it was removed, and begun again
            read = 0
        file.seek(read)
        for line in file:
            if not line.endswith(b"\n"):  # another process is writing it
                break
            read += len(line)
            with suppress(ValueError, RecursionError):
                match json.loads(line):
                    case [str(name), int(size), int(changed), str(digest)]:
                        memory[name] = [size, changed, digest]
    _known[place] = read, memory
    return memory


def _remember(folder: Path, new: list[list[object]]) -> None:
    """Append hashes to the memory in one piece: several processes may do so at once, and a large store has many."""
    path = memory_of(folder)
    with suppress(OSError):  # a full disk, a home that cannot be written: they are computed again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in new).encode())


def refuse_changed(folder: Path, expected: Mapping[str, str], header: str, *, again: bool = False) -> None:
    """Compare files of a folder with the hashes in a header.

    Raises:
        UserError: A file is missing, or its content is not what the header says; names the first one.
    """
    found = content_hashes(folder, sorted(expected), again=again)
    for name in sorted(expected):
        # What is remembered may be damaged too: hash the file again before it is refused.
        if found[name] != expected[name] and content_hashes(folder, [name], again=True)[name] != expected[name]:
            raise changed_error(folder / name, folder / header)


def changed_error(file: Path, header: Path) -> UserError:
    """The error for a file whose content is not what its header says."""
    return UserError(
        f"{file} was changed after {header} was written: its content is not what the header says; make the artifact "
        "again, or restore the file"
    )


def _is_entry(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], str)

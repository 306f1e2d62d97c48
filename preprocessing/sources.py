"""Lists what a `--source` holds: videos, folders of frames, pictures, tables, labelled data sets."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from checkpoints.errors import UserError
from preprocessing.affwild2 import is_release, release_items
from preprocessing.folders import are_frames, kind_of
from preprocessing.items import FRAME_BYTES, Group, Item
from preprocessing.labelled import find_labelled
from preprocessing.tables import hub_items, table_items

SHARD_BYTES = 1 << 18
"""Videos at least this large get their own shard; smaller ones share shards of up to this size."""
SHARD_VIDEOS = 64
SHARD_PICTURES = 512
LIKE_A_SUBJECT = re.compile(r"(.+)_([2-9]|[1-9]\d+|left|right)")
"""Ids that look like a subject of another video. The main subject has no number, so numbers start at 2."""


def find_items(
    sources: Sequence[str | Path], *, crops: bool, together: bool = True
) -> tuple[list[Item], list[dict[str, str]]]:
    """List what the sources hold, in an order that depends only on names.

    Args:
        sources: Folders and files, or `hf:NAME` for data sets that Hugging Face `datasets` can load.
        crops: The pictures already are faces.
        together: The items share a store, where `clip_2` would be the second person in `clip`.

    Returns:
        The items and the problems found: names that had to be changed, and what is left out (without a `video`). Text
        files and hidden files are passed over.

    Raises:
        UserError: A source does not exist or holds nothing readable.
    """
    items: list[Item] = []
    problems: list[dict[str, str]] = []
    taken: Counter[str] = Counter()
    for source in sources:
        if not str(source).strip():  # otherwise the folder that the command is started in
            raise UserError("a source is an empty text: give a folder or a file")
        name = _source_name(str(source))
        taken[name] += 1
        if taken[name] > 1:  # another source with this name
            name = f"{name}~{taken[name]}"
        doubts: list[tuple[str, str]] = []
        found = [
            replace(item, name=f"{name}/{item.name}" if item.name else name)
            for item in _items_of(str(source), doubts, crops=crops)
        ]
        places = [f"{name}/{place}" for place, _ in doubts]
        if not found:
            seen = f", only {', '.join(places[:3])}" if places else ""
            raise UserError(f"{source} holds nothing to read: no video, picture or table{seen}")
        items += found
        problems += [
            {"source": _printable(place), "video": "", "problem": problem}
            for place, (_, problem) in zip(places, doubts, strict=True)
        ]
    named, renamed = _with_distinct_ids(items, named=crops or not together)
    return named, problems + renamed


def _source_name(source: str) -> str:
    """Name of a file or folder, or of a Hugging Face data set, with `--` for `/` as in its cache."""
    hub = source.removeprefix("hf:")
    return hub.replace("/", "--") if hub != source and not Path(hub).exists() else Path(hub).resolve().name


def _items_of(source: str, doubts: list[tuple[str, str]], *, crops: bool) -> Iterable[Item]:
    """Items of a source; their names are relative to it, and empty if the source is a file.

    What is left out is added to `doubts`, with the reason.
    """
    if source.startswith("hf:"):
        return hub_items(source[3:])
    root = Path(source)
    if not root.exists():
        raise UserError(f"{source} does not exist")
    if root.is_file():
        return _file_items(root, "", kind_of(root), doubts)
    if is_release(root):
        return release_items(root, doubts, crops=crops)
    labelled = find_labelled(root, crops=crops)
    return _folder_items(root, doubts) if labelled is None else labelled


def _folder_items(root: Path, doubts: list[tuple[str, str]]) -> Iterator[Item]:
    """Files below a folder, ordered by path; a folder of numbered pictures is one video."""
    folders: dict[Path, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        # A broken link counts as an unreadable file, which the run reports as a problem.
        if (path.is_file() or (path.is_symlink() and not path.exists())) and not any(
            part.startswith(".") for part in path.relative_to(root).parts
        ):
            folders.setdefault(path.parent, []).append(path)
    for folder, files in folders.items():
        kinds = {path: kind_of(path) for path in files}
        pictures = [path for path, kind in kinds.items() if kind == "picture"]
        place = folder.relative_to(root).as_posix()
        frames, why_not = are_frames(pictures)
        if frames:
            yield Item(
                folder.resolve().name, folder, "" if place == "." else place, "frames", FRAME_BYTES * len(pictures)
            )
        elif why_not:
            doubts.append((place, why_not))
        for path, kind in kinds.items():
            if not frames or kind != "picture":
                yield from _file_items(path, path.relative_to(root).as_posix(), kind, doubts)


def _file_items(path: Path, name: str, kind: str, doubts: list[tuple[str, str]]) -> Iterator[Item]:
    """The items of one file; none if it is neither a video, a picture nor a table with pictures."""
    size = path.stat().st_size if path.exists() else 0
    if kind == "table":
        yield from table_items(path, name)
    elif kind == "picture":
        yield Item(path.stem, path, name, "picture", size)
    elif kind == "video" or not name:  # a file that was named is read, and then a problem
        yield Item(path.stem, path, name, "video", size)
    elif kind == "unknown":
        doubts.append((name, "is left out: no decoder finds a video or a picture in it"))


def _with_distinct_ids(items: list[Item], *, named: bool) -> tuple[list[Item], list[dict[str, str]]]:
    """Give every item a unique id that can be a file name, and report the names that were changed.

    Files with the same stem get their folders' names as a prefix; if that is not enough, their suffix is kept too. The
    faces of one picture are numbered. `named`: an id may look like a subject of another.
    """
    problems: list[dict[str, str]] = []
    # Crops of several subjects share the id of their video, as the parts of a table share the id of the table.
    subjects = [item.subjects if item.kind == "frames" else () for item in items]
    ids = [item.video for item in items]
    for spell in (_by_folder, _by_file, _by_source):
        names: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
        for item, id_, subject in zip(items, ids, subjects, strict=True):
            names[id_, subject].add(item.name)
        ids = [
            spell(item) if len(names[id_, subject]) > 1 else id_
            for item, id_, subject in zip(items, ids, subjects, strict=True)
        ]
    owner: dict[tuple[str, tuple[str, ...]], object] = {}
    videos = {_clean(id_) for item, id_ in zip(items, ids, strict=True) if item.kind != "table"}
    distinct = []
    for place, (item, id_, subject) in enumerate(zip(items, ids, subjects, strict=True)):
        clean = _clean(id_)
        # `clip_2` would be the second person in `clip`. In a data set that names people or boxes, this is intended.
        named_so = named or item.subjects or item.label or item.box or item.kind == "table"
        part = None if named_so else LIKE_A_SUBJECT.fullmatch(clean)
        if part and part[1] in videos:
            clean = f"{part[1]}~{part[2]}"
        unique, number = clean, 2
        this = item.name if item.kind == "table" else place
        while owner.setdefault((unique, subject), this) != this:
            unique, number = f"{clean}~{number}", number + 1
        if unique != item.video and item.rows[0] == 0:
            why = "control characters" if id_ == item.video else "another file has the same name"
            if item.box and id_ == item.video:
                why = "it is another face of a picture that is listed before"
            why = f"it would look like a subject of {part[1]!r}" if "~" in clean and part else why
            problem = f"renamed to {unique!r} in the store: {why}"
            problems.append({"source": _printable(item.name), "video": unique, "problem": problem})
        distinct.append(replace(item, video=unique, name=_printable(item.name)))
    return distinct, problems


def _clean(id_: str) -> str:
    """An id without the characters that a file name cannot hold."""
    return re.sub(r"[\x00-\x1f\x7f/\\]", "_", _printable(id_))


def _printable(name: str) -> str:
    """A name with `?` for bytes that are not UTF-8, which JSON and Parquet cannot hold."""
    return name.encode("utf-8", "replace").decode()


def _by_folder(item: Item) -> str:
    return Path(item.name).with_suffix("").as_posix().partition("/")[2].replace("/", "__") or item.video


def _by_file(item: Item) -> str:
    return item.name.partition("/")[2].replace("/", "__") or item.name


def _by_source(item: Item) -> str:
    return item.name.replace("/", "__")


def make_groups(items: Iterable[Item]) -> list[Group]:
    """Divide the items into shards: large videos alone, short videos and pictures together.

    The videos of a shard share detection batches. A killed run loses the shards it was writing.
    """
    groups: list[list[Item]] = []
    small: dict[str, list[Item]] = {}
    for item in items:
        if item.kind == "table" or (item.kind != "picture" and item.size >= SHARD_BYTES):
            groups.append([item])
            continue
        waiting = small.setdefault(item.kind, [])
        waiting.append(item)
        if item.kind == "picture":
            full = len(waiting) == SHARD_PICTURES
        else:
            full = len(waiting) == SHARD_VIDEOS or sum(i.size for i in waiting) >= SHARD_BYTES
        if full:
            groups.append(small.pop(item.kind))
    groups += small.values()
    return sorted((_group(members) for members in groups), key=lambda group: group.name)


def _group(members: list[Item]) -> Group:
    """Make a group, named after its first item and a hash of the items' names where needed."""
    # Not the length itself: a new edition of the labels must not make every video be read again.
    lines = [
        f"{i.name!r} {i.video!r} {i.kind} {i.size} {i.subjects} {i.rows} {i.box} {i.label} {i.length > 0}"
        for i in members
    ]
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    first = members[0].video
    if members[0].kind == "frames":
        first = "_".join([first, *members[0].subjects]).rstrip("_")
    elif members[0].kind == "table":
        first = f"{first}-{members[0].rows[0]:07d}"
    name = re.sub(r"[^\w.-]", "_", first, flags=re.ASCII)[:100]
    if len(members) > 1 or name != first:
        name = f"{name}~{hashlib.sha256(repr([i.name for i in members]).encode()).hexdigest()[:8]}"
    return Group(name, tuple(members), digest)

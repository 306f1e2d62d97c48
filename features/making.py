"""A feature cache that is being made: what in it is up to date, what is stale, and its header."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoints.artifact import check_seal, read_json
from checkpoints.content import content_hashes
from checkpoints.errors import UserError
from features.cache import HEADER, IMPORTED, FeatureCache, finish_cache, is_damaged, moved, source_of
from preprocessing.faces import FacesStore

MADE_BY = "features/run.py"


@dataclass(frozen=True)
class Origin:
    """What features are made by.

    Attributes:
        feature_id: Identifies what they mean.
        dim: D.
        made_of: What determines them beside the store's content: `feature_id` and one more word.
        config: How they are made, for the header.
        fingerprint: Of the encoder.
        encoder: Where it is, for readers of the cache: a path, a published name, or "" if there is none.
        seen: `trained_on` and `chosen_on`: whose labels taught and chose the encoder, by task.
    """

    feature_id: str
    dim: int
    made_of: str
    config: dict[str, Any]
    fingerprint: str
    encoder: str
    seen: dict[str, dict[str, list[str]]] = field(default_factory=lambda: {"trained_on": {}, "chosen_on": {}})


class CacheInMaking:
    """A feature cache that is being made or brought up to date.

    Args:
        path: Its directory.
        origin: What makes the features.
        store: The faces.
    """

    def __init__(self, path: Path, origin: Origin, store: FacesStore) -> None:
        self.path, self.origin, self.store = path, origin, store

    @property
    def _parents(self) -> dict[str, str]:
        encoder = {"encoder": self.origin.fingerprint} if self.origin.fingerprint else {}
        return encoder | {"faces": self.store.fingerprint}

    @property
    def up_to_date(self) -> bool:
        """Whether the cache is complete, readable and made in this way from these faces."""
        header = self._header()
        same = (header.get("parents"), header.get("config")) == (self._parents, self.origin.config)
        same = same and all(header.get(name) == ids for name, ids in self.origin.seen.items())
        return same and not self._changed() and all(source_of(self.path, s.id) for s in self.store.sequences())

    def _changed(self) -> list[Path]:
        """Files that are not what the header says, and are therefore extracted again; empty without a header."""
        try:
            expected = FeatureCache(self.path).sequences
        except UserError:
            return []
        files = [file for id in expected if (file := self.path / f"{id}.safetensors").is_file()]
        found = content_hashes(self.path, [file.name for file in files])
        return [file for file in files if found[file.name] != expected[file.stem]["hash"]]

    def _header(self) -> dict[str, Any]:
        """The header; empty if the cache is unfinished or damaged."""
        try:
            header = read_json(self.path / HEADER)
            if isinstance(header, dict):
                check_seal(header, self.path / HEADER)
                return header
        except UserError:
            pass
        return {}

    def open(self) -> None:
        """Make the directory, and remove the header that would declare it complete.

        Raises:
            UserError: It holds something that this job did not write, or only features of other faces, which would be
                deleted.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        header = self._header()
        by = str(header.get("made_by", MADE_BY))
        if by.rpartition(" ")[2] != MADE_BY:
            raise UserError(f"{self.path} is a feature cache that {by} made: choose another --out")
        made = header.get("config")
        if isinstance(made, dict) and bool(made.get("sound")) != bool(self.origin.config.get("sound")):
            kind = "sound" if made.get("sound") else "faces"
            raise UserError(f"{self.path} is a feature cache of {kind}: choose another --out")
        ids, kept = {sequence.id for sequence in self.store.sequences()}, set()
        for file in self.path.iterdir():
            if file.name in (HEADER, "report.html") or file.name.startswith("."):
                continue
            source = source_of(self.path, file.stem) if file.suffix == ".safetensors" else None
            # A file that a crash of the machine damaged has no readable source: its name must do.
            ours = not source.startswith(IMPORTED) if source else file.stem in ids and is_damaged(file)
            if file.suffix != ".safetensors" or not ours:
                raise UserError(f"{self.path} holds {file.name!r}, which {MADE_BY} did not write: choose another --out")
            kept.add(file.stem)
        if kept and not kept & ids:
            raise UserError(
                f"{self.path} holds features of other faces, such as {min(kept)!r}, and none of {self.store.path}: "
                "choose another --out"
            )
        for file in self._changed():
            print(f"extracted again: {file} was changed", flush=True)
            file.unlink()
        (self.path / HEADER).unlink(missing_ok=True)

    def source(self, content: str) -> str:
        """What a file of the cache is made of, as text, given the content of its faces."""
        return f"{self.origin.made_of} {content}"

    def stale(self, id: str, source: str) -> str | None:
        """Why a sequence must be extracted (`missing`, or what has changed); None if it is up to date."""
        found = source_of(self.path, id)
        if found == source:
            return None
        if found is None:
            return "missing" if not (self.path / f"{id}.safetensors").exists() else "of unknown origin"
        old, new = found.split(" "), source.split(" ")
        names = (
            "made by another encoder, view or framing",
            "made in another precision",
            "made from other faces or sound",
        )
        return next(name for name, a, b in zip(names, old, new, strict=True) if a != b)

    def finish(self) -> None:
        """Delete sequences that are no longer in the store and write the header."""
        ids = {sequence.id for sequence in self.store.sequences()}
        for file in self.path.glob("*.safetensors"):
            if file.stem not in ids:
                print(f"deleted {file}: the store has no such sequence", flush=True)
                file.unlink()
        origin = self.origin
        finish_cache(
            self.path,
            made_by=MADE_BY,
            config=origin.config,
            parents=self._parents,
            feature_id=origin.feature_id,
            dim=origin.dim,
            encoder=moved(origin.encoder, Path(), self.path),
            **origin.seen,
            synthetic=bool(self.store.header.get("synthetic", False)),
        )

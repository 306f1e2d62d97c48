"""Every artifact below a folder, compared with what its header says (`wildaffect doctor --verify`)."""

from collections.abc import Callable
from pathlib import Path

from checkpoints.artifact import read_json
from checkpoints.encoder import checked_weights
from checkpoints.errors import UserError
from features.cache import FeatureCache
from preprocessing.faces import FacesStore
from wildaffect.inference.models import check_bundle


def verify(folder: Path) -> None:
    """Hash everything again, print a line for each artifact.

    Raises:
        UserError: There is no artifact, or an artifact is not what its header says; the others are checked too.
    """
    checks: dict[str, Callable[[Path], object]] = {
        "faces store": lambda path: FacesStore(path).check(again=True),
        "feature cache": lambda path: FeatureCache(path).check(again=True),
        "encoder": lambda path: checked_weights(path, read_json(path / "config.json")),
        "head": lambda path: checked_weights(path, read_json(path / "config.json")),
        "bundle": check_bundle,
    }
    found, wrong = 0, []
    names = ("faces.json", "features.json", "config.json", "bundle.json")
    for header in sorted(path for name in names for path in folder.rglob(name)):
        try:
            content = read_json(header)
            kind = content.get("kind") if isinstance(content, dict) else None
            if kind not in checks:
                continue
            found += 1
            checks[kind](header.parent)
            print(f"{kind} {header.parent}: as its header says", flush=True)
        except UserError as error:
            wrong.append(str(error))
            print(f"{header.parent}: {error}", flush=True)
    if wrong:
        raise UserError(f"{len(wrong)} of {found} artifacts below {folder} are not what their headers say: {wrong[0]}")
    if not found:
        raise UserError(f"{folder} holds no faces store, feature cache, encoder, head or bundle")

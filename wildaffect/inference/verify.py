"""Every artifact below a folder, compared with what its header says (`wildaffect doctor --verify`)."""

from collections.abc import Callable
from pathlib import Path

from checkpoints.artifact import read_json
from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from features import cache
from preprocessing import faces
from temporal.heads import HEADER, load_head
from wildaffect.inference.clip import check_clip
from wildaffect.inference.models import BUNDLE, check_bundle
from wildaffect.tasks import predictions


def verify(folder: Path) -> None:
    """Hash everything again, print a line for each artifact.

    Raises:
        UserError: There is no artifact, or an artifact is not what its header says; the others are checked too.
    """
    checks: dict[str, Callable[[Path], object]] = {
        "faces store": lambda path: faces.FacesStore(path).check(again=True),
        "feature cache": lambda path: cache.FeatureCache(path).check(again=True),
        "encoder": load_encoder,
        "head": load_head,
        "bundle": check_bundle,
        predictions.KIND: check_clip,
    }
    found, wrong = 0, []
    names = (faces.HEADER, cache.HEADER, HEADER, BUNDLE, predictions.HEADER)
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
        raise UserError(f"{folder} holds no faces store, feature cache, encoder, head, bundle or predictions")

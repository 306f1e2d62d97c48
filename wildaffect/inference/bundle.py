"""Bundles: heads and their encoders in one directory that can be moved, optionally with ONNX graphs."""

import shutil
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

from checkpoints.artifact import (
    TEMPORARY,
    fingerprint,
    read_header,
    read_json,
    temporary_sibling,
    write_header,
    write_sealed,
)
from checkpoints.encoder import WEIGHTS, encoder_directory
from checkpoints.errors import UserError
from checkpoints.lock import LOCK, locked, remove_leftovers
from features.cache import PUBLISHED
from features.sound import LOGMEL
from features.speech_model import PREPARATION
from wildaffect.inference.clip_facts import describe_kinds, describe_models
from wildaffect.inference.models import BUNDLE, BundleHeader, Models, load_models
from wildaffect.inference.onnx_export import export_bundle
from wildaffect.report.card import CARD, failures, withheld_line, write_card, write_product_card

KIND = "bundle"
SCHEMA = 1


def write_bundle(
    heads: Sequence[Path | str],
    out: Path,
    *,
    onnx: bool = False,
    data: Sequence[str] = (),
    scores: Sequence[str] = (),
    keep: bool = True,
) -> None:
    """Write a bundle.

    Args:
        heads: Stage-3 runs, head directories or bundles; empty for the default ones.
        out: The directory to write.
        onnx: Also write ONNX graphs, and compare them with PyTorch on random inputs.
        data: Lines about the data besides what the heads record, for every card.
        scores: Lines about scores besides those of the heads, for the bundle's card: text or Markdown tables.
        keep: Keep such lines of the bundles that heads or encoders come from; otherwise `data` and `scores` take their
            place.

    Raises:
        UserError: The heads cannot be loaded, `out` is in use, or an exported graph disagrees with PyTorch.
    """
    out = out.absolute()
    # Everything is written beside `out` and then renamed, so that there is never half a bundle.
    made = temporary_sibling(out)
    try:
        with locked(out):
            if any(path.name != LOCK for path in out.iterdir()):
                raise UserError(f"{out} is not empty: choose another --out")
            remove_leftovers(out.parent.glob(f".{escape(out.name[:50])}{TEMPORARY[2:]}"))
            models = load_models(heads)
            kept = (models.data, models.scores) if keep else ([], [])
            _write(models, made, out, onnx=onnx, data=[*kept[0], *data], scores=[*kept[1], *scores])
        made.replace(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def made_from(bundle: Path) -> str:
    """The fingerprint of the heads that a bundle was made from; see :attr:`Models.fingerprint`."""
    return read_header(bundle, BUNDLE, kind=KIND, schema=SCHEMA, form=BundleHeader)["parents"]["heads"]


def _write(models: Models, out: Path, final: Path, *, onnx: bool, data: Sequence[str], scores: Sequence[str]) -> None:
    """Write a bundle to `out`, which will be renamed to `final`."""
    copy_models(models, out, data)
    differences: dict[str, float] = {}
    if onnx:
        differences = export_bundle(load_models(sorted((out / "heads").iterdir())))
        for name, difference in differences.items():
            print(f"{name}: ONNX differs from PyTorch by at most {difference:.1e} on random inputs")
    write_card_of(models, out / CARD, data, scores)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    write_header(
        out,
        BUNDLE,
        kind=KIND,
        schema=SCHEMA,
        made_by="export",
        config={"onnx": onnx},
        parents={"heads": models.fingerprint},
        heads=models.sources,
        kinds=models.kinds,
        data=list(data),
        scores=list(scores),
        onnx_difference=differences,
        files={path.relative_to(out).as_posix(): fingerprint(path) for path in files},
    )
    size = sum(path.stat().st_size for path in files) / 2**20
    print(f"{final}: {len(models.heads)} heads, {len(models.embedders) + len(models.sounds)} inputs, {size:.1f} MiB")


def copy_models(models: Models, out: Path, data: Sequence[str] = ()) -> None:
    """Copy head and encoder directories, and make the heads' records point to the copies; `data` is for their cards."""
    places: dict[str, str] = {}
    names: set[str] = set()
    for directory, source in zip(models.directories, models.sources, strict=True):
        name, number = source["name"], 2
        while name in names:
            name, number = f"{source['name']}-{number}", number + 1
        names.add(name)
        target = out / "heads" / name
        target.mkdir(parents=True)
        shutil.copyfile(directory / WEIGHTS, target / WEIGHTS)
        header = read_json(directory / "config.json")
        for item in header["inputs"]:
            if item["encoder"].startswith(PUBLISHED):
                print(f"warning: {item['encoder']} is not copied: its weights are downloaded again on another machine")
                continue
            if item.get("sound") == LOGMEL:
                continue  # has no weights
            origin = str(encoder_directory(directory / item["encoder"]).resolve())
            if origin not in places:
                places[origin] = f"encoders/{len(places)}"
                copy = out / places[origin]
                copy.mkdir(parents=True)
                for file in (WEIGHTS, "config.json", *([PREPARATION] if item.get("sound") else [])):
                    shutil.copyfile(Path(origin) / file, copy / file)
                if "kind" in read_json(copy / "config.json"):  # a published folder has no card to write
                    write_product_card(copy, data)
            item["encoder"] = f"../../{places[origin]}"
        write_sealed(target / "config.json", header)
        write_product_card(target, data)


def write_card_of(models: Models, path: Path, data: Sequence[str], scores: Sequence[str]) -> None:
    """Write one model card for several heads together, with further lines on data and scores."""
    rows: Sequence[Sequence[Any]] = describe_models(models)
    withheld = [f"{one['name']}: {withheld_line(one['withheld'])}" for one in models.sources if "withheld" in one]
    encoders = [embedder.encoder.config for embedder in models.embedders.values()]
    kinds = dict.fromkeys(f"{config.architecture} at {config.image_size} pixels" for config in encoders)
    kinds |= dict.fromkeys(f"sound ({ear.config['sound']})" for ear in models.sounds.values())
    write_card(
        path,
        name=" + ".join(source["name"] for source in models.sources),
        what=(
            f"Temporal heads on frozen features of {', '.join(kinds)}: from the aligned faces"
            f"{' and the sound' if models.sounds else ''} of a video to "
            f"{', '.join(task.title.lower() for task in models.tasks)} for every frame."
        ),
        data=[
            *(f"{row[0]} ({row[1]}, recipe {row[2]}): {row[3]}" for row in rows),
            *describe_kinds(models),
            *withheld,
            *data,
        ],
        remarks=scores,
        scores=[(f"{row[0]} ({row[1]})", row[4], row[5], row[6]) for row in rows if row[4] is not None],
        warnings=[models.caution] if models.synthetic else [],
        failures=failures(
            [task.name for task in models.tasks],
            withheld=models.withheld,
            window=max(head.architecture.window for head in models.heads),
        ),
    )

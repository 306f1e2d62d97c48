"""The heads a user names, with their encoders: found, checked against each other, described."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NotRequired

import numpy as np
import torch

from checkpoints.artifact import Header, combine_hashes, fingerprint, read_header
from checkpoints.encoder import WEIGHTS, chosen_on, encoder_directory, load_encoder
from checkpoints.errors import UserError
from checkpoints.framing import UNKNOWN, Framing
from checkpoints.network import Encoder
from checkpoints.reading import shown
from features.cache import PUBLISHED
from features.embed import Embedder, with_pooling
from features.sound import LOGMEL, Ear
from features.speech_model import load_ear
from temporal.heads import Head, HeadInput, head_directories, load_head
from temporal.predict import average, decode, predict_sequence
from wildaffect.inference.scratch import side_by_side
from wildaffect.report.card import CLEAN, KIND_MEANS, UNSCORED, caution, labels_are
from wildaffect.tasks import TASKS, Task
from wildaffect.tasks.leaks import clean_scores
from wildaffect.tasks.priors import ADAPTATIONS

DEFAULT = Path(__file__).parents[2] / "checkpoints" / "starter"
VARIABLE = "WILDAFFECT_HEADS"
BUNDLE = "bundle.json"
KINDS = tuple(KIND_MEANS)


class BundleHeader(Header):
    """Header of a bundle."""

    files: dict[str, str]
    heads: list[dict[str, Any]]
    data: NotRequired[list[str]]
    scores: NotRequired[list[str]]


@dataclass
class Models:
    """Heads and their encoders.

    Attributes:
        heads: In the order they were named; heads of the same task are averaged.
        embedders: Feature id to what makes these features.
        sources: One description per head, for everything that is written.
        directories: Where each head is.
        sounds: Feature id to what makes these features of sound.
        places: Feature id to the directory of its encoder.
        fingerprint: Identifies heads and encoders together.
        framing: How faces were framed in training; unknown if no head says so.
        prior: Name of the prior that expressions are under; `stated` for the heads' own.
        adapt: How expressions are adapted to each person or clip; see :meth:`wildaffect.tasks.priors.Prior.adapted`.
        data: Lines on the data in the bundles that heads and encoders come from, such as the terms of the weights.
        scores: Lines on scores in the bundles that heads come from.
    """

    heads: list[Head]
    embedders: dict[str, Embedder]
    directories: list[Path] = field(default_factory=list)
    sounds: dict[str, Ear] = field(default_factory=dict)
    places: dict[str, Path] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    fingerprint: str = ""
    framing: Framing = UNKNOWN
    prior: str = "stated"
    adapt: str = "none"
    data: list[str] = field(default_factory=list)
    scores: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[Task]:
        """The tasks that are predicted, in the usual order."""
        present = {task.name for head in self.heads for task in head.tasks}
        return [task for task in TASKS.values() if task.name in present]

    @property
    def image_size(self) -> int:
        """Side of the largest picture that an encoder reads, in pixels; 0 if there is none."""
        return max((embedder.encoder.config.image_size for embedder in self.embedders.values()), default=0)

    @property
    def withheld(self) -> set[str]:
        """AUs that no output has, because a head withholds them."""
        return {name for head in self.heads for name in head.withheld}

    @property
    def framing_is_known(self) -> bool:
        """Whether every head says how faces were framed in its training."""
        return all(embedder.framing.is_known for embedder in self.embedders.values())

    @property
    def kinds(self) -> dict[str, str]:
        """Task name to what its heads learnt from: one of `KINDS`, the last that holds for any of them."""
        return {
            task.name: max((s["labels_are"] for s in self.sources if task.name in s["tasks"]), key=KINDS.index)
            for task in self.tasks
        }

    @property
    def synthetic(self) -> bool:
        """Whether all of it was trained on drawn or rendered faces."""
        return set(self.kinds.values()) == {"synthetic"}

    @property
    def caution(self) -> str:
        """What to know of heads that learnt from synthetic faces alone; empty for others."""
        return caution(source.get("faces") for source in self.sources) if self.synthetic else ""

    def predict(
        self,
        features: Mapping[str, np.ndarray],
        valid: np.ndarray,
        rate: float,
        heard: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> dict[str, np.ndarray]:
        """Values of every frame of one sequence, averaged over the heads of a task.

        Args:
            features: Feature id to `[T, D]`, gaps filled with the nearest frame.
            valid: `[T]` bool, frames with a face.
            rate: Frames per second.
            heard: Feature id of sound to `[T]` bool, frames with sound.

        Returns:
            Task name to `[T, out_dim]`.
        """
        every = []
        for head in self.heads:
            values = predict_sequence(
                head,
                side_by_side([features[item.feature_id] for item in head.inputs]),
                np.stack([heard.get(item.feature_id, valid) for item in head.inputs], axis=1),
                rate=rate,
            )
            if head.prior and "expr" in values:
                values["expr"] = head.prior.adapted(values["expr"], valid, self.adapt, rate)
            every.append(values)
        return average(self.heads, every)

    def under(self, prior: str | Path, adapt: str) -> None:
        """Answer for expressions under another prior, or adapted to each clip.

        Args:
            prior: See :func:`wildaffect.tasks.priors.named_prior`.
            adapt: `none`, `person` or `clip`; see :meth:`wildaffect.tasks.priors.Prior.adapted`.

        Raises:
            UserError: There is no such prior or adaptation; a head does not say what prior it was trained with, or none
                predicts expressions.
        """
        if adapt not in ADAPTATIONS:
            raise UserError(f"adapt {shown(adapt)}: expected one of {', '.join(ADAPTATIONS)}")
        if (prior, adapt) == ("stated", "none"):
            return
        if not any("expr" in source["tasks"] for source in self.sources):
            raise UserError("--prior and --adapt change expressions, which no head predicts: leave both out")
        before = [head.prior for head in self.heads]
        for head, source in zip(self.heads, self.sources, strict=True):
            if "expr" in source["tasks"]:
                if head.prior is None:
                    raise UserError(
                        f"the head {source['name']} does not say which prior it was trained with, so that --prior and "
                        "--adapt cannot change it: train it again"
                    )
                head.prior = head.prior.named(prior)
        if [head.prior for head in self.heads] != before:
            self.prior = Path(prior).name
        self.adapt = adapt
        shares = [head.prior.stated for head in self.heads if head.prior]
        self.fingerprint = combine_hashes({"models": self.fingerprint, "prior": f"{shares} {adapt}"})

    def decode(self, task: Task, values: np.ndarray, rate: float) -> np.ndarray:
        """Averaged values `[T, out_dim]` in the form of a label file."""
        return decode(self.heads, task.name, values, rate)


def default_heads() -> list[Path]:
    """Heads used when none are named: those of the environment variable, or those that came with the installation.

    Raises:
        UserError: There are none.
    """
    named = os.environ.get(VARIABLE, "")
    if named:
        return [Path(part) for part in named.split(os.pathsep) if part]
    if not (DEFAULT / BUNDLE).exists():
        raise UserError(
            "no heads named and none installed: pass --heads RUN... (runs of temporal/run.py, or a bundle made by "
            f"`wildaffect export`), or set {VARIABLE}"
        )
    return [DEFAULT]


def load_models(paths: Sequence[Path | str] = (), device: torch.device | str = "cpu") -> Models:
    """Load heads and the encoders their records point to.

    Args:
        paths: Runs, head directories, or bundles; by default the installed ones.
        device: Where the networks go.

    Raises:
        UserError: A head is missing or damaged, its encoder cannot be found, or is not the one it was trained with; or
            the heads were trained on faces in different framings.
    """
    directories = _directories([Path(path) for path in paths] or default_heads())
    models = Models([], {}, directories)
    for directory in directories:
        head = load_head(directory, device)
        provenance = []
        for item in head.inputs:
            if item.sound:
                provenance.append(_add_ear(models, directory, item, device))
                continue
            embedder = models.embedders.get(item.feature_id)
            if embedder is None:
                encoder = _encoder(directory, item.encoder, item.pooling).to(device)
                embedder = Embedder(encoder, item.view, item.flip, Framing.from_dict(item.framing))
                if embedder.feature_id != item.feature_id:
                    raise UserError(
                        f"the encoder {directory / item.encoder} is not the one that the head {directory} was trained "
                        f"with (feature id {embedder.feature_id[:12]} instead of {item.feature_id[:12]}): it was "
                        "changed or trained again; extract features again and train the head on them"
                    )
                models.embedders[item.feature_id] = embedder
                models.places[item.feature_id] = encoder_directory(directory / item.encoder).resolve()
            provenance.append(embedder.encoder.provenance)
        models.heads.append(head)
        models.sources.append(describe(directory, head, provenance))
    # A head's header holds the hash of its weights, which has just been checked.
    hashes = {f"head {number}": fingerprint(path / "config.json") for number, path in enumerate(directories)}
    models.framing = _common_framing(models)
    names = [*models.embedders, *models.sounds]
    models.fingerprint = combine_hashes(hashes | {f"features {name}": name for name in names})
    _read_lines(models)
    return models


def _read_lines(models: Models) -> None:
    """Read what the bundles that heads and encoders come from say about data and scores; of encoders on data alone.

    Otherwise the terms of the weights would get lost when they are used or exported again.
    """
    homes = [directory.resolve().parents[1] for directory in models.directories]
    for home in dict.fromkeys([*homes, *(place.parents[1] for place in models.places.values())]):
        if not (home / BUNDLE).is_file():
            continue
        header = read_header(home, BUNDLE, kind="bundle", schema=1, form=BundleHeader)
        names = [source["name"] for source in header["heads"]]
        whole = homes == [home] * len(names)
        origin = [] if whole else [f"Of the bundle {' + '.join(names)}, from which part of this comes:"]
        if said := header.get("data"):
            models.data += [*origin, *said]
        if home in homes and (said := header.get("scores")):
            models.scores += [*origin, *said]


def _common_framing(models: Models) -> Framing:
    """The framing that all heads know faces in; unknown if none says so.

    Raises:
        UserError: The heads name different ones.
    """
    groups: list[tuple[Framing, list[str]]] = []
    for head, source in zip(models.heads, models.sources, strict=True):
        for framing in (models.embedders[item.feature_id].framing for item in head.inputs if not item.sound):
            names = next((names for other, names in groups if other.identity == framing.identity), None)
            if names is not None:
                names.append(source["name"])
            elif framing.is_known:
                groups.append((framing, [source["name"]]))
    if len(groups) > 1:
        parts = (f"{', '.join(dict.fromkeys(names))} ({framing.name})" for framing, names in groups)
        raise UserError(
            f"the heads were trained on faces in different framings: {'; '.join(parts)}: predict with one group at a "
            "time"
        )
    return groups[0][0] if groups else UNKNOWN


def describe(directory: Path, head: Head, encoders: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What an output says about a head: name, training data, scores on videos that neither taught nor chose it."""
    record = head.record
    seen = [head.seen, *(part.get("labelled_videos") or {} for part in encoders), *map(chosen_on, encoders)]
    scores = clean_scores(record, {id for by_task in seen for ids in by_task.values() for id in ids})
    run = directory.resolve()
    return {
        "name": run.parent.name if run.name == "head" else run.name,
        "tasks": [task.name for task in head.tasks],
        "recipe": head.recipe,
        "trained_on_videos": len(head.trained_on),
        "scored_on": CLEAN if scores else UNSCORED,
        "scores": {
            task.name: {
                key: scores[task.name][key] for key in ("score", "chance", "videos") if key in scores[task.name]
            }
            for task in head.tasks
            if task.name in scores
        },
        "encoders": [
            {key: part[key] for key in ("stage", "recipe", "label_task", "synthetic_labels") if part.get(key)}
            | {"labelled_videos": {task: len(ids) for task, ids in (part.get("labelled_videos") or {}).items()}}
            | {"chosen_on": {task: len(ids) for task, ids in chosen_on(part).items()}}
            for part in encoders
        ],
        "labels_are": "synthetic" if any(part.get("synthetic") for part in encoders) else labels_are(record),
        **({"faces": record["faces"]} if "faces" in record else {}),
        **({"withheld": list(head.withheld)} if head.withheld else {}),
    }


def _directories(paths: Sequence[Path]) -> list[Path]:
    """Head directories behind runs, folds and bundles."""
    found = []
    for path in paths:
        bundled = sorted(path.glob("heads/*/config.json"))
        if bundled:
            check_bundle(path, weights=False)
        found += [file.parent for file in bundled] or head_directories(path)
    return found


def check_bundle(path: Path, *, weights: bool = True) -> None:
    """Compare a bundle with its `bundle.json`.

    Args:
        path: The bundle.
        weights: Hash weights too. Where they are loaded next it is not needed: loading compares them with their
            `config.json`, which is compared here.

    Raises:
        UserError: The bundle is not complete, or a file was added, removed or changed.
    """
    header = read_header(path, BUNDLE, kind="bundle", schema=1, form=BundleHeader)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    files = {name: file for name, file in files.items() if name != BUNDLE and not file.name.startswith(".")}
    differ = files.keys() ^ header["files"].keys()
    compared = {name for name in files if name not in differ and (weights or files[name].name != WEIGHTS)}
    differ |= {name for name in compared if fingerprint(files[name]) != header["files"][name]}
    if differ:
        raise UserError(
            f"{path / sorted(differ)[0]} is not what {path / BUNDLE} lists ({len(differ)} such file(s)): export the "
            "bundle again, or copy it again from where it came from"
        )


def _encoder(directory: Path, where: str, pooling: str | None) -> Encoder:
    """Load an encoder given relative to a head's directory."""
    if not where:
        raise UserError(
            f"the head {directory} does not say where its encoder is: it was trained on features of unknown origin; "
            "extract features with features/run.py and train the head on them"
        )
    return with_pooling(load_encoder(_place(directory, where)), pooling)


def _place(directory: Path, where: str) -> str:
    """A published name as it is, or the path of an encoder that is given relative to a head's directory."""
    if where.startswith(PUBLISHED):
        return where
    place = Path(os.path.normpath(directory.absolute() / where))
    if not place.is_dir():
        raise UserError(
            f"the encoder of the head {directory} is not where it was ({place}): move it back, or bundle heads and "
            "encoder with `wildaffect export` before moving them"
        )
    return str(place)


def _add_ear(models: Models, directory: Path, item: HeadInput, device: torch.device | str) -> dict[str, Any]:
    """Load what makes a head's features of sound, unless it is there already; returns its provenance.

    Raises:
        UserError: It is missing, or not the one that the head was trained with.
    """
    ear = models.sounds.get(item.feature_id)
    if ear is None:
        ear = load_ear(LOGMEL if item.sound == LOGMEL else _place(directory, item.encoder), device)
        if ear.feature_id != item.feature_id:
            raise UserError(
                f"the {item.sound} of the head {directory} is not the one it was trained with (feature id "
                f"{ear.feature_id[:12]} instead of {item.feature_id[:12]}): extract sound again and "
                "train the head on it"
            )
        models.sounds[item.feature_id] = ear
    return {"stage": f"sound ({ear.config.get('architecture', item.sound)})"}

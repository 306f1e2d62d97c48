"""The head artifact: a trained network with the inputs it accepts, its smoothing and its thresholds."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
import torch

from checkpoints.artifact import Header, fingerprint, read_header, write_header
from checkpoints.encoder import WEIGHTS
from checkpoints.errors import UserError
from checkpoints.forms import Count, Ids, Size
from checkpoints.framing import UNKNOWN, FramingForm
from checkpoints.network import BUILD_FAULTS
from checkpoints.reading import shown
from checkpoints.tensors import checked_weights, load_tensors, load_weights, save_tensors
from temporal.network import HeadNetwork
from temporal.recipes import Architecture
from temporal.smoothing import Smoothing
from wildaffect.tasks import TASKS, Task
from wildaffect.tasks.leaks import together
from wildaffect.tasks.priors import Prior

HEADER = "config.json"
KIND = "head"
SCHEMA = 2


@dataclass(frozen=True)
class HeadInput:
    """One cache that a head reads.

    Attributes:
        feature_id: identifies what its features mean.
        dim: width of the features.
        encoder: path of the encoder, relative to the head's directory, or `timm:NAME` or `hf:NAME`; empty if there is
            none or it is unknown.
        view: part of the face that the encoder sees.
        flip: whether features are averaged over each picture and its mirror image.
        pooling: how tokens were pooled into one vector; None: as in the encoder's training.
        framing: how the faces were framed, see :meth:`checkpoints.framing.Framing.as_dict`.
        sound: empty for features of faces; of sound: `logmel`, or `model` for the speech model `encoder`.
    """

    feature_id: str
    dim: Size
    encoder: str = ""
    view: str = "full"
    flip: bool = False
    pooling: str | None = None
    framing: Annotated[dict[str, Any], FramingForm] = field(default_factory=UNKNOWN.as_dict)
    sound: Literal["", "logmel", "model"] = ""


class TaskScore(TypedDict):
    """A task's score in a header."""

    score: float
    videos: NotRequired[Count]
    chance: NotRequired[float]


class Scores(TypedDict, total=False):
    """Scores by task."""

    va: TaskScore
    expr: TaskScore
    au: TaskScore


class Record(TypedDict, total=False):
    """Facts about the training of a head that are read again."""

    validation: Scores | None
    scored_on: list[str] | None
    synthetic: bool
    labels_are: Literal["real", "derived", "synthetic"]
    faces: Literal["rendered"]


class HeadHeader(Header):
    """Header of a head."""

    task: Literal["va", "expr", "au", "joint"]
    recipe: str
    architecture: Annotated[dict[str, Any], Architecture]
    inputs: list[Annotated[dict[str, Any], HeadInput]]
    smoothing: dict[str, Annotated[dict[str, Any], Smoothing]]
    thresholds: list[float] | None
    withheld: NotRequired[list[str]]
    prior: Annotated[dict[str, Any], Prior] | None
    shares: NotRequired[dict[str, float]]
    trained_on: list[str]
    encoder_trained_on: Ids
    encoder_chosen_on: NotRequired[Ids]
    record: Record
    weights: str


@dataclass
class Head:
    """A trained head, ready to predict.

    Attributes:
        network: in evaluation mode.
        tasks: what it predicts, in the order of its outputs.
        architecture: of the network.
        inputs: the caches that it reads, in order.
        recipe: name of its recipe.
        smoothing: task name -> how its values are smoothed.
        thresholds: AU thresholds `[12]`, or None for 0.5.
        withheld: names of the AUs that are not reported, because the head failed on them or could not be checked.
        prior: of an expression head: the priors it was trained with and answers under; None in heads that do not say.
        shares: task name -> what its values count in an average with other heads; 1 where nothing is said.
        trained_on: ids of the videos on whose labels it was trained or tuned.
        encoder_trained_on: task name -> ids of the videos on whose labels the encoders were trained.
        encoder_chosen_on: task name -> ids of the videos whose labels chose which states of the encoders were kept.
        record: further facts for the reader: seed, steps, `chosen_on` (ids that chose epoch, smoothing and thresholds),
            `scored_on` (ids that were only scored), scores.
    """

    network: HeadNetwork
    tasks: tuple[Task, ...]
    architecture: Architecture
    inputs: tuple[HeadInput, ...]
    recipe: str
    smoothing: dict[str, Smoothing] = field(default_factory=dict)
    thresholds: np.ndarray | None = None
    withheld: tuple[str, ...] = ()
    prior: Prior | None = None
    shares: dict[str, float] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list)
    encoder_trained_on: dict[str, list[str]] = field(default_factory=dict)
    encoder_chosen_on: dict[str, list[str]] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`va`, `expr`, `au` or `joint`."""
        return task_name(self.tasks)

    @property
    def seen(self) -> dict[str, list[str]]:
        """Task name -> ids of the videos whose labels taught or chose the head or its encoders."""
        own = {task.name: self.trained_on for task in self.tasks}
        return together(own, self.encoder_trained_on, self.encoder_chosen_on)

    def share(self, task: str) -> float:
        """What its values count in an average with other heads; 0 for a task that it does not predict."""
        return self.shares.get(task, 1.0) if any(own.name == task for own in self.tasks) else 0.0

    def split(self, outputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Split outputs `[..., sum of out_dim]` by task name."""
        widths = [task.out_dim for task in self.tasks]
        return {task.name: part for task, part in zip(self.tasks, outputs.split(widths, dim=-1), strict=True)}

    def check_inputs(self, feature_ids: Sequence[str], where: str = "these features") -> None:
        """Refuse features other than those that the head was trained on.

        Raises:
            UserError: the feature ids differ; the message names both.
        """
        expected = [item.feature_id for item in self.inputs]
        if list(feature_ids) != expected:
            raise UserError(
                f"the {self.name} head was trained on features of another encoder, view or framing than {where} "
                f"(feature id {', '.join(i[:12] for i in feature_ids)} instead of "
                f"{', '.join(i[:12] for i in expected)}): extract "
                "features with the head's own encoder, or train a head on these features"
            )


def task_name(tasks: Sequence[Task]) -> str:
    """`joint` for several tasks, otherwise the name of the task."""
    return tasks[0].name if len(tasks) == 1 else "joint"


def tasks_of(name: str) -> tuple[Task, ...]:
    """Tasks of a head: one, or all three for `joint`."""
    return tuple(TASKS.values()) if name == "joint" else (TASKS[name],)


def save_head(head: Head, directory: Path, *, made_by: str, config: dict[str, Any], parents: dict[str, str]) -> None:
    """Write `model.safetensors` and, last, `config.json`."""
    save_tensors(directory / WEIGHTS, head.network.state_dict())
    write_header(
        directory,
        HEADER,
        kind=KIND,
        schema=SCHEMA,
        made_by=made_by,
        config=config,
        parents=parents,
        task=head.name,
        recipe=head.recipe,
        architecture=asdict(head.architecture),
        inputs=[asdict(item) for item in head.inputs],
        smoothing={name: asdict(smoothing) for name, smoothing in head.smoothing.items()},
        thresholds=None if head.thresholds is None else [round(float(value), 6) for value in head.thresholds],
        **({"withheld": list(head.withheld)} if head.withheld else {}),
        prior=None if head.prior is None else asdict(head.prior),
        **({"shares": head.shares} if head.shares else {}),
        trained_on=head.trained_on,
        encoder_trained_on=head.encoder_trained_on,
        encoder_chosen_on=head.encoder_chosen_on,
        record=head.record,
        weights=fingerprint(directory / WEIGHTS),
    )


def head_directories(path: Path | str) -> list[Path]:
    """Directories of the head(s) at a path: RUN, RUN/head, a run with several folds or seeds, or tuned heads."""
    path = Path(path)
    members = [folder for pattern in ("fold*/head", "seed*/head", "tuned*/head") for folder in path.glob(pattern)]
    if members:
        # fold2 before fold10
        return sorted(members, key=lambda folder: [int(n) for n in re.findall(r"\d+", folder.parent.name)])
    return [path / "head" if (path / "head").is_dir() else path]


def read_head_header(directory: Path) -> HeadHeader:
    """Header of a head.

    Raises:
        UserError: It is missing or has another form, or a number of shares or thresholds that fits no task.
    """
    header = read_header(directory, HEADER, kind=KIND, schema=SCHEMA, form=HeadHeader)
    parts = [(header["thresholds"], TASKS["au"]), *((part, TASKS["expr"]) for part in (header["prior"] or {}).values())]
    for numbers, task in parts:
        if numbers is not None and len(numbers) != task.out_dim:
            raise UserError(
                f"{directory / HEADER} was changed: {shown(numbers)} is not one number for each {task.name}"
            )
    return header


def load_head(path: Path | str, device: torch.device | str = "cpu") -> Head:
    """Read a head from its directory or its run's.

    Raises:
        UserError: the head is missing, incomplete or damaged, or its schema is unknown.
    """
    (directory, *others) = head_directories(path)
    if others:
        raise UserError(f"{path} holds {len(others) + 1} heads: name one, such as {directory.parent}")
    header = read_head_header(directory)
    if set(header["architecture"]) != {item.name for item in fields(Architecture)}:
        raise UserError(f"{directory / HEADER} describes an architecture that this version does not know")
    tasks = tasks_of(header["task"])
    inputs = tuple(HeadInput(**item) for item in header["inputs"])
    architecture = Architecture(**header["architecture"])
    architecture = replace(architecture, tcn_channels=tuple(architecture.tcn_channels))
    tensors = load_tensors(directory / WEIGHTS)
    checked_weights(directory / WEIGHTS, header["weights"], directory / HEADER)
    try:
        network = HeadNetwork(architecture, [item.dim for item in inputs], sum(task.out_dim for task in tasks))
    except BUILD_FAULTS as error:
        problem = shown(str(error), 200)
        raise UserError(f"{directory / HEADER} describes a network that cannot be built: {problem}") from None
    load_weights(network, tensors, source=directory)
    return Head(
        network=network.to(device).eval(),
        tasks=tasks,
        architecture=architecture,
        inputs=inputs,
        recipe=header["recipe"],
        smoothing={name: Smoothing(**options) for name, options in header["smoothing"].items()},
        thresholds=None if header["thresholds"] is None else np.array(header["thresholds"]),
        withheld=tuple(header.get("withheld", ())),
        prior=Prior(**{name: tuple(shares) for name, shares in prior.items()}) if (prior := header["prior"]) else None,
        shares=header.get("shares", {}),
        trained_on=header["trained_on"],
        encoder_trained_on=header["encoder_trained_on"],
        encoder_chosen_on=header.get("encoder_chosen_on", {}),
        record=dict(header["record"]),
    )


def load_heads(paths: Sequence[Path | str], device: torch.device | str = "cpu") -> list[Head]:
    """Load all heads at the given paths; a run with several folds or seeds has several heads."""
    return [load_head(directory, device) for path in paths for directory in head_directories(path)]

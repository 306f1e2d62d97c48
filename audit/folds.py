"""Folds over the recordings of a release, the same for every task, and what stages 1 and 2 may see for an evaluation.

python audit/folds.py --affwild2 DIR --out FOLDS [--k 5]
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from audit.run import identities, listed_for_testing
from checkpoints.artifact import atomic_file
from checkpoints.errors import UserError, guarded
from wildaffect.tasks.folds import group_of, grouped_folds, label_counts
from wildaffect.tasks.labels import TRAIN, VALIDATION, Tracks, all_annotations
from wildaffect.tasks.task import TASKS


@dataclass
class Config:
    """Write folds, and the recordings that training must leave out for an honest evaluation."""

    affwild2: Path
    """Root of the release, or its annotations."""
    out: Path
    """Folder for `folds.csv` and `leave_out/`."""
    k: int = 5
    """Number of folds."""
    seed: int = 0
    """Which of the many such splits; as `--seed` of temporal/run.py with `--folds`."""
    identities: Path | None = None
    """CSV with the columns id and identity, where people are known to be in several videos; they then stay together
    too, which temporal/run.py does not know of."""


def main() -> None:
    """Write the files and print how the folds compare."""
    config = tyro.cli(Config, description=__doc__)
    annotations = all_annotations(config.affwild2)
    counts = label_counts(annotations)
    if not counts:
        raise UserError(f"{config.affwild2} holds no annotations: expected the root of an Aff-Wild2 release")
    people = identities(config.identities, config.affwild2) if config.identities else {}
    folds = grouped_folds(counts, config.k, config.seed, people)
    write_folds(config.out / "folds.csv", folds, annotations)
    lists = {f"fold{number}": fold for number, fold in enumerate(folds)} | evaluated(config.affwild2, annotations)
    for name, ids in lists.items():
        write_list(config.out / "leave_out" / f"{name}.txt", name, ids, [*counts, *ids], people)
    print(as_text(folds, annotations))
    print(f"folds in {config.out / 'folds.csv'}, lists for --exclude in {config.out / 'leave_out'}")


def evaluated(root: Path, annotations: Mapping[str, Mapping[str, Tracks]]) -> dict[str, list[str]]:
    """Name of an evaluation -> the ids it scores."""
    scored = {f"{task}_validation": sorted(by_split[VALIDATION]) for task, by_split in annotations.items()}
    scored |= {f"{name}_test": listed_for_testing(root, task) for name, task in TASKS.items()}
    scored["all_validation"] = sorted({id for by_split in annotations.values() for id in by_split[VALIDATION]})
    return {name: ids for name, ids in scored.items() if ids}


def write_folds(path: Path, folds: Sequence[Sequence[str]], annotations: Mapping[str, Mapping[str, Tracks]]) -> None:
    """One line per id: its recording, fold, and split in each task."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "recording", "fold", *annotations])
        for number, fold in enumerate(folds):
            for id in fold:
                splits = [
                    next((split for split in (TRAIN, VALIDATION) if id in by_split[split]), "")
                    for by_split in annotations.values()
                ]
                writer.writerow([id, group_of(id), number, *splits])


def write_list(path: Path, name: str, ids: Sequence[str], known: Sequence[str], people: Mapping[str, str]) -> None:
    """Every known id that shares a recording or a person with the evaluated ones."""
    recordings = {group_of(id) for id in ids}
    seen = {people[id] for id in ids if id in people}
    shared = sorted({id for id in known if group_of(id) in recordings or people.get(id) in seen})
    with atomic_file(path) as temporary:
        head = f"# for an evaluation on {name}: give to --exclude of pretrain/run.py and finetune/run.py\n"
        temporary.write_text(head + "".join(f"{id}\n" for id in shared), encoding="utf-8")


def as_text(folds: Sequence[Sequence[str]], annotations: Mapping[str, Mapping[str, Tracks]]) -> str:
    """Per fold the recordings, and per task the frames and the distribution of labels in percent."""
    lines = []
    for name, by_split in annotations.items():
        task, tracks = TASKS[name], {id: track for part in by_split.values() for id, track in part.items()}
        lines.append(f"{name + ', percent of the annotated frames':46}" + " ".join(f"{k[:6]:>6}" for k in task.kinds))
        for number, fold in enumerate(folds):
            mine = [tracks[id] for id in fold if id in tracks]
            strata = np.sum([task.strata(track.labels, track.mask) for track in mine], axis=0) if mine else np.zeros(1)
            frames = sum(int(track.mask.any(1).sum()) for track in mine)
            share = " ".join(f"{100 * count / max(frames, 1):5.1f}" for count in np.atleast_1d(strata))
            lines.append(
                f"  fold {number}: {len({group_of(id) for id in fold}):4} recordings {frames:9,} frames  {share}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    guarded(main)

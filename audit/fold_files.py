"""Writes the folds of a release, and lists of recordings to leave out of training for an evaluation."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from audit.examine import known_people, listed_for_testing
from checkpoints.artifact import atomic_file
from checkpoints.errors import UserError
from wildaffect.tasks.challenge import FORMS
from wildaffect.tasks.folds import group_of, grouped_folds, label_counts
from wildaffect.tasks.labels import TRAIN, VALIDATION, Tracks, all_annotations
from wildaffect.tasks.task import TASKS


def make_folds(affwild2: Path, out: Path, k: int, seed: int, identities: Path | None) -> None:
    """Write the folds of a release and the lists of recordings to leave out, and print a comparison of the folds.

    Raises:
        UserError: The folder holds no annotations.
    """
    annotations = all_annotations(affwild2)
    counts = label_counts(annotations)
    if not counts:
        raise UserError(f"{affwild2} holds no annotations: expected the root of an Aff-Wild2 release")
    scored = evaluated(affwild2, annotations)
    everyone = {*counts, *(id for part in scored.values() for id in part)}
    people = known_people(identities, affwild2, everyone) if identities else {}
    folds = grouped_folds(counts, k, seed, people)
    write_folds(out / "folds.csv", folds, annotations)
    lists = {f"fold{number}": fold for number, fold in enumerate(folds)} | scored
    known = sorted(everyone)
    for name, ids in lists.items():
        write_list(out / "leave_out" / f"{name}.txt", name, ids, known, people)
    print(as_text(folds, annotations))
    print(f"folds in {out / 'folds.csv'}, lists for --exclude in {out / 'leave_out'}")


def evaluated(root: Path, annotations: Mapping[str, Mapping[str, Tracks]]) -> dict[str, list[str]]:
    """The ids that each evaluation scores, by its name."""
    scored = {f"{task}_validation": sorted(by_split[VALIDATION]) for task, by_split in annotations.items()}
    scored |= {f"{name}_test": listed_for_testing(root, name) for name in FORMS}
    scored["all_validation"] = sorted({id for by_split in annotations.values() for id in by_split[VALIDATION]})
    return {name: ids for name, ids in scored.items() if ids}


def write_folds(path: Path, folds: Sequence[Sequence[str]], annotations: Mapping[str, Mapping[str, Tracks]]) -> None:
    """Write one line per id: its recording, its fold, and its split in each task."""
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
    """Write every known id that shares a recording or a person with the evaluated ones."""
    recordings = {group_of(id) for id in ids}
    seen = {people[id] for id in ids if id in people}
    shared = sorted({id for id in known if group_of(id) in recordings or people.get(id) in seen})
    with atomic_file(path) as temporary:
        head = f"# for an evaluation on {name}: pass to --exclude of pretrain/run.py and finetune/run.py\n"
        temporary.write_text(head + "".join(f"{id}\n" for id in shared), encoding="utf-8")


def as_text(folds: Sequence[Sequence[str]], annotations: Mapping[str, Mapping[str, Tracks]]) -> str:
    """A table of each fold's recordings, and of its frames and label distribution in percent, by task."""
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

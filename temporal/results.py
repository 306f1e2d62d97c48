"""The files that a run writes beside its state: heads with their cards, predictions of the scored videos, a report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from temporal.data import FrameTable
from temporal.heads import save_head
from temporal.plots import write_run_report
from temporal.recipes import Temporal
from temporal.selection import Member, average_predictions, decode_annotated, held_out_predictions, ids_of
from temporal.smoothing import RAW
from wildaffect.report.card import write_product_card
from wildaffect.tasks.predictions import PredictionTrack, write_predictions
from wildaffect.training.rundir import RunDirectory


def write_heads(
    run: RunDirectory, members: Sequence[Member], *, made_by: str, config: dict[str, Any], parents: dict[str, str]
) -> None:
    """Write `head/` of each member, with its model card."""
    for member in members:
        directory = run.path / member.name / "head"
        save_head(member.head, directory, made_by=made_by, config=config, parents=parents)
        write_product_card(directory)


def write_predictions_and_report(
    config: Temporal, run: RunDirectory, table: FrameTable, members: Sequence[Member], summary: Mapping[str, Any]
) -> None:
    """Write `validation/<id>.parquet` (smoothed predictions of whole sequences) and `report.html`."""
    head = members[0].head
    items = average_predictions([member.reported for member in members])
    ids = ids_of(items)
    for id, seen in table.faces(ids).items():
        same = {task: next(item for item in part if item.id == id) for task, part in items.items()}
        values = {task: head.smoothing.get(task, RAW).on_values(item.values, item.rate) for task, item in same.items()}
        frames = np.arange(1, len(seen) + 1)
        seconds = (frames - 1) / next(iter(same.values())).rate
        track = PredictionTrack(frames, seconds, seen, values)
        write_predictions(run.path / "validation" / f"{id}.parquet", {"": track})
    shown = items if ids else held_out_predictions(members)
    by_task = {task.name: decode_annotated(head, task.name, shown[task.name]) for task in head.tasks}
    write_run_report(run.path / "report.html", config, run.metrics(), summary, by_task)

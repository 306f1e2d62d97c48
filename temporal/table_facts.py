"""Facts about a table of labelled features: whether its labels suffice, which windows have any, feature statistics."""

from collections.abc import Sequence

import numpy as np
import torch

from checkpoints.errors import UserError
from temporal.data import FrameTable
from temporal.windows import Windows
from wildaffect.tasks import Task


def check_labels(table: FrameTable, tasks: Sequence[Task], train: Sequence[str]) -> None:
    """Refuse labels from which nothing can be learned.

    Raises:
        UserError: a task has no annotated frame in the training videos, or the same label in all frames.
    """
    for task in tasks:
        rows = torch.cat([torch.arange(a, a + n) for a, n in (table.spans[i] for i in table.select(train))])
        labels, mask = table.labels[task.name].cpu()[rows], table.mask[task.name].cpu()[rows]
        if not mask.any():
            raise UserError(
                f"none of the {len(train)} training sequences has an annotated {task.name} frame (all lines are "
                f"marked {task.marker}): check --labels"
            )
        kinds = [labels[mask[:, column], column].unique() for column in range(task.label_width)]
        if all(len(values) < 2 for values in kinds):
            which = f" ({task.columns[int(kinds[0])]})" if task.name == "expr" else ""
            raise UserError(
                f"all annotated training frames have the same {task.name} label{which}: there is nothing to learn"
            )
        shown = zip(task.kinds, task.strata(labels.numpy(), mask.numpy()), strict=True)
        if absent := [kind for kind, frames in shown if not frames]:
            print(f"note: no annotated training frame shows {', '.join(absent)}, so the head cannot learn it")


def annotated(windows: Windows, table: FrameTable) -> np.ndarray:
    """Indices of the windows with at least one label among the frames that they predict."""
    any_label = torch.stack([mask.any(dim=1) for mask in table.mask.values()]).any(dim=0).cpu().numpy()
    keep = []
    for start in range(0, len(windows), 4096):  # in parts, because there may be one window per frame
        part = windows[start : start + 4096]
        keep.append(start + np.flatnonzero((any_label[part.rows()[0]] & part.predicted()).any(axis=1)))
    return np.concatenate(keep)


def feature_moments(
    table: FrameTable, spans: Sequence[tuple[int, int]], dims: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation `[D]` over the frames of some spans, for each cache over its own valid frames.

    The spans (first row, length) are summed one at a time, in float64. `dims` are the widths of the caches.
    """
    device = table.features.device
    total = torch.zeros(2, sum(dims), dtype=torch.float64, device=device)
    count = torch.zeros(sum(dims), dtype=torch.float64, device=device)
    widths = torch.tensor(dims, device=device)
    for start, length in spans:
        valid = table.valid[start : start + length].to(device)
        frames = table.features[start : start + length].double() * valid.repeat_interleave(widths, dim=1)
        total += torch.stack([frames.sum(0), frames.square().sum(0)])
        count += valid.sum(0).repeat_interleave(widths)
    mean = total[0] / count.clamp_min(1)
    deviation = (total[1] / count.clamp_min(1) - mean.square()).clamp_min(0).sqrt()
    return mean.float(), torch.where(deviation > 1e-5, deviation, 1.0).float()

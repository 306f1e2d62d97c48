"""Which videos may be scored: those whose labels neither taught nor chose the encoder or the head.

The splits of Aff-Wild2's tasks overlap: an encoder fine-tuned on the Expr training set has seen 29 of the 76 validation
videos of VA, with labels, so their scores would be too good. So would the Expr scores of the videos whose labels
chose which of its states was kept.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from checkpoints.errors import UserError
from wildaffect.tasks.folds import without


def together(*parts: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Task -> sorted ids of several such mappings; tasks without ids are left out."""
    tasks = sorted({task for part in parts for task, ids in part.items() if ids})
    return {task: sorted({id for part in parts for id in part.get(task, ())}) for task in tasks}


def refuse_other_tasks(tasks: Collection[str], encoder: Mapping[str, Collection[str]]) -> None:
    """Refuse an encoder that saw labels of other tasks (the challenge's uni-task rule); see :func:`scoreable`.

    Raises:
        UserError: It did.
    """
    others = sorted(task for task, seen in encoder.items() if seen and task not in tasks)
    if others:
        count = sum(len(encoder[task]) for task in others)
        raise UserError(
            f"--rule-clean: {', '.join(others)} labels of {count} sequences taught or chose the encoder, which the "
            f"uni-task rule forbids for {', '.join(sorted(tasks))}: use features of an encoder without them"
        )


def scoreable(
    ids: Sequence[str],
    *,
    tasks: Collection[str],
    encoder: Mapping[str, Collection[str]],
    head: Collection[str],
    allow_leak: bool,
    rule_clean: bool,
    required: bool = True,
) -> list[str]:
    """The ids to score; a warning on stderr names those left out.

    Args:
        ids: labelled sequences.
        tasks: tasks that are scored.
        encoder: task -> ids whose labels of that task taught the encoder, or chose one of its states.
        head: ids the head was trained or tuned on.
        allow_leak: score leaked ids too, with a warning.
        rule_clean: raise an error instead, for any such video and for any encoder that saw labels of another task
            (the challenge's uni-task rule).
        required: raise an error if no id is left; otherwise there is no score.

    Raises:
        UserError: Under `rule_clean` or `required`.
    """
    if rule_clean:
        refuse_other_tasks(tasks, encoder)
    clean = without(ids, {id for seen in (*encoder.values(), head) for id in seen})
    leaked = [id for id in ids if id not in set(clean)]
    if not leaked:
        return clean
    who = (
        f"{len(leaked)} of {len(ids)} labelled sequences (such as {leaked[0]}) taught or chose the encoder or the head"
    )
    if rule_clean:
        raise UserError(
            f"--rule-clean: {who}: score others, or make them without these (audit/folds.py writes lists for --exclude)"
        )
    if allow_leak:
        print(f"warning: {who}; they are scored anyway (--allow-leak)", file=sys.stderr)
        return list(ids)
    if not clean and required:
        raise UserError(f"{who}: no other is left to score; --allow-leak scores them anyway")
    print(f"warning: {who}; left out of the score (--allow-leak scores them too)", file=sys.stderr)
    return clean


def clean_scores(record: Mapping[str, Any], seen: Iterable[str]) -> dict[str, Any]:
    """The validation scores in a head's record; empty unless their videos neither taught nor chose it.

    Args:
        record: of the head: `validation` has the scores, `scored_on` the ids they are of.
        seen: ids whose labels taught or chose the head or its encoders.
    """
    scored = record.get("scored_on") or []
    clean = bool(scored) and without(scored, seen) == list(scored)
    return dict(record.get("validation") or {}) if clean else {}

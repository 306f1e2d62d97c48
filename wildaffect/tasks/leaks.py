"""Which videos may be scored: those whose labels neither the encoder nor the head was trained on.

The splits of Aff-Wild2's tasks overlap: an encoder fine-tuned on the Expr training set has seen 29 of the 76 validation
videos of VA, with labels, so their scores would be too good.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence

from checkpoints.errors import UserError
from wildaffect.tasks.folds import group_of


def scoreable(
    ids: Sequence[str],
    *,
    tasks: Collection[str],
    encoder: Mapping[str, Collection[str]],
    head: Collection[str],
    allow_leak: bool,
    rule_clean: bool,
) -> list[str]:
    """The ids to score; a warning on stderr names those left out.

    Args:
        ids: labelled sequences.
        tasks: tasks that are scored.
        encoder: task -> ids whose labels of that task the encoder was trained on.
        head: ids the head was trained or tuned on.
        allow_leak: score leaked ids too, with a warning.
        rule_clean: raise an error instead, for any such video and for any encoder trained on labels of another task
            (the challenge's uni-task rule).

    Raises:
        UserError: Under `rule_clean`, or if no id is left.
    """
    others = sorted(task for task, seen in encoder.items() if seen and task not in tasks)
    if rule_clean and others:
        raise UserError(
            f"--rule-clean: the encoder was trained on {', '.join(others)} labels of "
            f"{sum(len(encoder[task]) for task in others)} sequences, which the uni-task rule forbids for "
            f"{', '.join(sorted(tasks))}: use features of an encoder without them"
        )
    known = {group_of(id) for seen in encoder.values() for id in seen} | {group_of(id) for id in head}
    leaked = [id for id in ids if group_of(id) in known]
    if not leaked:
        return list(ids)
    who = f"{len(leaked)} of {len(ids)} labelled sequences (such as {leaked[0]}) taught the encoder or the head"
    if rule_clean:
        raise UserError(f"--rule-clean: {who}: score others, or train without them")
    if allow_leak:
        print(f"warning: {who}; they are scored anyway (--allow-leak)", file=sys.stderr)
        return list(ids)
    if len(leaked) == len(ids):
        raise UserError(f"{who}: no other is left to score; --allow-leak scores them anyway")
    print(f"warning: {who}; left out of the score (--allow-leak scores them too)", file=sys.stderr)
    return [id for id in ids if id not in set(leaked)]

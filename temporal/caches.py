"""Feature caches as a head reads them: opened together, recorded in the head, and found again by their ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpoints.errors import UserError
from features.cache import FeatureCache, Made, moved
from temporal.heads import Head, HeadInput


def open_caches(paths: Sequence[Path]) -> list[FeatureCache]:
    """Open feature caches that are used together.

    Raises:
        UserError: no cache is given, or two caches have features of different frames for the same id.
    """
    if not paths:
        raise UserError("no feature cache given: pass --features CACHE (made by features/run.py)")
    caches = [FeatureCache(path) for path in paths]
    first = caches[0]
    for other in caches[1:]:
        for id in sorted(set(first.ids) & set(other.ids)):
            if first.span(id) != other.span(id):
                raise UserError(
                    f"{first.path} has frames {first.span(id)[0]} to {first.span(id)[1]} of {id}, {other.path} has "
                    f"{other.span(id)[0]} to {other.span(id)[1]}: extract both from the same faces store"
                )
    return caches


def head_inputs(caches: Sequence[FeatureCache], head: Path) -> tuple[HeadInput, ...]:
    """Record the caches, with the paths of their encoders relative to the head's directory."""
    inputs = []
    for cache in caches:
        encoder = moved(str(cache.header.get("encoder", "")), cache.path, head)
        how: dict[str, Any] = {name: value for name, value in cache.made.items() if name in Made.__annotations__}
        inputs.append(HeadInput(cache.feature_id, cache.dim, encoder, **how))
    return tuple(inputs)


def pick_caches(head: Head, caches: Sequence[FeatureCache]) -> list[FeatureCache]:
    """The caches that a head reads, in its order.

    Raises:
        UserError: one of them is missing: the given caches come from another encoder or view.
    """
    by_id = {cache.feature_id: cache for cache in caches}
    if not all(item.feature_id in by_id for item in head.inputs):
        head.check_inputs([cache.feature_id for cache in caches], ", ".join(str(cache.path) for cache in caches))
    return [by_id[item.feature_id] for item in head.inputs]

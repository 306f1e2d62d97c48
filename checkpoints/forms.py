"""Whether JSON content has the form that its reader needs: the fields of a `TypedDict` or dataclass, with their types.

`bool` is not a number, nor is what JSON cannot express (NaN), and the first misfit is named by its place. Fields that a
`TypedDict` does not know are left alone; those that a dataclass does not know are refused. `Annotated[T, rule]` says
more about a T: the least number, that it is a name, or the dataclass that an object is to become.
"""

import math
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from itertools import cycle
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from checkpoints.errors import UserError
from checkpoints.reading import LONGEST_NAME, shown

NAME = "a name without / and without a dot in front"
Count = Annotated[int, 0]
"""A whole number of 0 or more."""
Size = Annotated[int, 1]
"""A whole number of 1 or more."""
Name = Annotated[str, NAME]
"""The name of a file, or an id."""
Ids = dict[str, list[str]]
"""Task -> ids."""
_MOST = 2**48
_SAID = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
_SAID |= {dict: "an object", list: "a list", tuple: "a list"}
T = TypeVar("T")


def checked(content: Any, form: type[T], where: object) -> T:
    """`content` itself, if it has the form.

    Raises:
        UserError: It has not; names the first place that differs, in `where`.
    """
    for problem in _misfits(content, form, ""):
        raise UserError(f"{where} is damaged or of another version: {problem}; restore the file, or make it again")
    return content


def _misfits(content: Any, form: Any, place: str) -> Iterator[str]:
    """The places where content differs from a form, and how."""
    kind, arguments = get_origin(form) or form, get_args(form)
    if kind is Annotated:
        yield from _misfits_of_rule(content, arguments[0], arguments[1], place)
    elif kind in (Union, UnionType):
        problems = [next(_misfits(content, part, place), "") for part in arguments]
        if "" not in problems:
            yield problems[0]
    elif kind is Literal:
        if not any(type(content) is type(value) and content == value for value in arguments):
            yield _differs(content, place, " or ".join(map(repr, arguments)))
    elif is_typeddict(kind) or is_dataclass(kind):
        yield from _misfits_of_fields(content, kind, place)
    elif kind is not Any:
        if not _is_a(content, kind):
            yield _differs(content, place, _SAID[kind])
        elif arguments or kind is tuple:
            yield from _misfits_of_parts(content, kind, arguments, place)


def _misfits_of_rule(content: Any, base: Any, rule: Any, place: str) -> Iterator[str]:
    if is_dataclass(rule):
        yield from _misfits_of_fields(content, rule, place)
        return
    yield from _misfits(content, base, place)
    if isinstance(content, str) and not _is_name(content):
        yield _differs(content, place, rule)
    if isinstance(content, int) and content < rule:
        yield _differs(content, place, f"{rule} or more")


def _misfits_of_parts(content: Any, kind: Any, arguments: tuple[Any, ...], place: str) -> Iterator[str]:
    if kind is dict:
        for key, value in content.items():
            yield from _misfits(key, arguments[0], f"a key of {place or 'it'}")
            yield from _misfits(value, arguments[1], _below(place, key))
        return
    alike = kind is list or arguments[-1:] == (Ellipsis,)
    if alike and arguments[0] is str and all(type(value) is str for value in content):
        return  # quick: headers list many ids
    if not alike and len(content) != len(arguments):
        yield f"{place or 'it'} has {len(content)} parts, expected {len(arguments)}"
    for number, (value, part) in enumerate(zip(content, cycle(arguments[:1] if alike else arguments), strict=False)):
        yield from _misfits(value, part, f"{place}[{number}]")


def _misfits_of_fields(content: Any, form: Any, place: str) -> Iterator[str]:
    if not isinstance(content, dict):
        yield _differs(content, place, _SAID[dict])
        return
    types = get_type_hints(form, include_extras=True)
    if is_typeddict(form):
        required = form.__required_keys__
        types = {name: get_args(kind)[0] if get_origin(kind) is NotRequired else kind for name, kind in types.items()}
    else:
        required = {f.name for f in fields(form) if f.default is MISSING and f.default_factory is MISSING}
        yield from (f"{_below(place, name)} is unknown" for name in sorted(content.keys() - types.keys()))
    yield from (f"{_below(place, name)} is missing" for name in sorted(required - content.keys()))
    for name in content.keys() & types.keys():
        yield from _misfits(content[name], types[name], _below(place, name))


def _is_a(content: Any, kind: Any) -> bool:
    """Whether content is of a plain type, and, if it is a number, one that is counted or measured anywhere here."""
    if isinstance(content, bool) or kind is bool:
        return isinstance(content, bool) and kind is bool
    if isinstance(content, (int, float)) and not (math.isfinite(content) and abs(content) < _MOST):
        return False
    others: dict[Any, Any] = {float: (int, float), tuple: list}
    return isinstance(content, others.get(kind, kind))


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and text.isprintable() and not text.startswith(".") and "/" not in text


def _below(place: str, key: str) -> str:
    return f"{place}.{key[:60]}" if place else key[:60]


def _differs(content: Any, place: str, wanted: str) -> str:
    return f"{place or 'it'} is {shown(content)}, expected {wanted}"

"""Numbers on command lines: tyro takes what Python takes (`1_000`, `nan`, `٣`), these rules only ASCII decimals."""

from typing import Any

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from checkpoints.decimals import decimal, whole_number

STRICT = ConstructorRegistry()
"""A context in which tyro reads numbers strictly."""
_MOST = 10**18


@STRICT.primitive_rule
def _numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """How tyro reads `int` and `float`."""
    if info.type is int:
        return PrimitiveConstructorSpec(1, "INT", lambda words: _whole(words[0]), _is_int, _as_words)
    if info.type is float:
        return PrimitiveConstructorSpec(1, "FLOAT", lambda words: _number(words[0]), _is_float, _as_words)
    return None


def _whole(text: str) -> int:
    number = whole_number(text.removeprefix("-"), _MOST)
    if number is None:
        raise ValueError(f"expected a whole number, found {text[:40]!r}")
    return -number if text.startswith("-") else number


def _number(text: str) -> float:
    number = decimal(text)
    if number is None:
        raise ValueError(f"expected a number, found {text[:40]!r}")
    return number


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: Any) -> bool:
    return isinstance(value, float) or _is_int(value)


def _as_words(value: Any) -> list[str]:
    return [str(value)]

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints.errors import UserError
from checkpoints.forms import Count, Ids, Name, Size, checked


@dataclass
class Part:
    size: Size
    mean: tuple[float, float] = (0.0, 0.0)
    kwargs: dict[str, Any] = field(default_factory=dict)


class Form(TypedDict):
    name: Name
    count: Count
    share: float
    on: bool
    kind: Literal["a", "b"]
    ids: Ids
    parts: list[Annotated[dict[str, Any], Part]]
    widths: tuple[int, ...]
    maybe: str | None
    late: NotRequired[dict[Name, int]]


GOOD = {
    "name": "a.b",
    "count": 0,
    "share": 1,
    "on": False,
    "kind": "b",
    "ids": {"va": ["x"]},
    "parts": [{"size": 1, "mean": [0, 0.5]}],
    "widths": [1, 2, 3],
    "maybe": None,
    "more": object,
}


def test_what_fits_is_passed_on():
    assert checked(GOOD, Form, "x") is GOOD
    checked(GOOD | {"late": {"v": 1}}, Form, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../a"}, "name is '../a', expected a name"),
        ({"name": ""}, "name is ''"),
        ({"count": True}, "count is True, expected a whole number"),
        ({"count": -1}, "count is -1, expected 0 or more"),
        ({"count": 1.0}, "count is 1.0"),
        ({"count": 10**30}, "count is 1000"),
        ({"share": float("nan")}, "share is nan, expected a number"),
        ({"share": "1"}, "share is '1'"),
        ({"on": 1}, "on is 1, expected true or false"),
        ({"kind": "c"}, "kind is 'c', expected 'a' or 'b'"),
        ({"ids": {"va": [1]}}, r"ids\.va\[0\] is 1, expected text"),
        ({"ids": []}, r"ids is \[\], expected an object"),
        ({"parts": [{}]}, r"parts\[0\]\.size is missing"),
        ({"parts": [{"size": 1, "new": 2}]}, r"parts\[0\]\.new is unknown"),
        ({"parts": [{"size": 0}]}, r"parts\[0\]\.size is 0, expected 1 or more"),
        ({"parts": [{"size": 1, "mean": [1]}]}, r"parts\[0\]\.mean has 1 parts, expected 2"),
        ({"parts": [[]]}, r"parts\[0\] is \[\], expected an object"),
        ({"widths": [1, "2"]}, r"widths\[1\] is '2'"),
        ({"maybe": 1}, "maybe is 1"),
        ({"late": {".v": 1}}, "a key of late is '.v'"),
    ],
)
def test_the_first_misfit_is_named(change, message):
    with pytest.raises(UserError, match=f"a.json is damaged or of another version: {message}"):
        checked(GOOD | change, Form, "a.json")
    for name in GOOD.keys() - {"more"}:
        with pytest.raises(UserError, match=f"{name} is missing"):
            checked({key: value for key, value in GOOD.items() if key != name}, Form, "a.json")


TEXT = st.text("ab./é\n", max_size=3)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from([*GOOD]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from([*GOOD]), anything))
def test_anything_else_is_refused_in_a_line(changes):
    try:
        checked(GOOD | changes, Form, "a.json")
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 400

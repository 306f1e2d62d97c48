import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints.decimals import LAST_FRAME, decimal, whole_number
from checkpoints.errors import UserError
from checkpoints.reading import (
    decode_text,
    in_lines,
    parse_json,
    parse_rows,
    read_csv,
    read_lines,
    read_npy,
    visible,
)


def test_a_device_is_no_file():
    with pytest.raises(UserError, match="/dev/zero is a device"):
        read_lines(Path("/dev/zero"))


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb\r\n", "a\rb\r\r", "a\nb\n\n \n"])
def test_lines_have_any_end_and_may_begin_with_a_mark(tmp_path, text):
    for mark in ("", "\ufeff"):
        (tmp_path / "a").write_bytes((mark + text).encode())
        assert read_lines(tmp_path / "a") == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a\nbé".encode("latin-1"), "line 2: this is not UTF-8"),
        ("a".encode("utf-16"), "line 1: this is not UTF-8"),
        ("ab".encode("utf-16-le"), r"line 1: a control character \(0x00\)"),
        (b"a\n\n\x1ab", r"line 3: a control character \(0x1a\)"),
    ],
)
def test_other_texts_are_refused_by_line(data, message):
    with pytest.raises(UserError, match=f"a.txt, {message}"):
        decode_text(data, "a.txt")


def test_hidden_files_are_passed_over(tmp_path):
    for name in ("b.txt", "a.txt", "._a.txt", ".hidden"):
        (tmp_path / name).touch()
    assert [path.name for path in visible(tmp_path.iterdir())] == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    "text", ["0_1", "３", "nan", "inf", "1e999", "0x1", "1 2", "", "9" * 5000, "1e", "\u00a01", "²"]
)
def test_what_is_no_decimal_number(text):
    assert decimal(text) is None and whole_number(text) is None
    with pytest.raises(UserError, match=r"line 3, column b: .* is not a number"):
        parse_rows(["1,2", f"1,{text}"], ["a", "b"], in_lines("x"))


def test_whole_numbers_have_a_largest():
    assert whole_number("00012") == 12 and whole_number(str(LAST_FRAME)) == LAST_FRAME
    assert whole_number(str(LAST_FRAME + 1)) is None and whole_number("+1") is None and whole_number("1.0") is None


@settings(max_examples=50)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_exactly(number):
    assert decimal(repr(number)) == number
    assert parse_rows([f"{number!r}, 1"], ["a", "b"], in_lines("x")).tolist() == [[number, 1.0]]


@settings(max_examples=50)
@given(st.lists(st.text("0123456789.,-+eE_ ３n\t", max_size=12), min_size=1, max_size=4))
def test_rows_are_read_alike_together_and_cell_by_cell(lines):
    cells = [[decimal(cell) for cell in line.split(",")] for line in lines]
    try:
        found = parse_rows(lines, ["a", "b"], in_lines("x")).tolist()
    except UserError:
        found = None
    assert found == (cells if all(len(row) == 2 and None not in row for row in cells) else None)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1, "a": 2}', "9" * 5000, '"\\ud800"', "", "{"])
def test_json_that_is_refused(text):
    with pytest.raises(UserError, match=r"^a\.json cannot be read as JSON: "):
        parse_json(text, "a.json")


def test_other_json_is_read():
    content = {"é": [1, None, {"a": "\U0001f600"}], "b": -0.5}
    assert parse_json(json.dumps(content), "x") == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,4\n", "line 1: it holds numbers"),
        ("0.5,nan,\n", "line 1: it holds numbers"),
        ("a,b\n1\n", "row 1: 1 cells under 2"),
        ("", "is empty"),
        ("x" * 1000, "line 1: expected the names"),
    ],
)
def test_tables_that_would_be_misread(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_csv(tmp_path / "a.csv")


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:70], lambda d: d[:-1], lambda d: b"PK\x03\x04" + d])
def test_damaged_arrays(tmp_path, damage):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(3.0))
    assert read_npy(path).tolist() == [0, 1, 2]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="cannot be read as an array"):
        read_npy(path)


@pytest.mark.filterwarnings("error")
def test_an_array_that_python_2_wrote(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(3))
    path.write_bytes(path.read_bytes().replace(b"(3,), }  ", b"(3L,), } "))
    assert read_npy(path).shape == (3,)

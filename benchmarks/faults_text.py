"""Reads thousands of damaged texts with every reader of users' files, and counts what goes wrong.

    python -m benchmarks.faults_text --texts 20000 --seed 1

Each text is a valid file of some kind, changed by one or two of the mutators below. A reader must refuse it with one
short `UserError`, or read from it what a plain strict parser finds there.
"""

import json
import random
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.fault_readers import READERS, Reader
from benchmarks.hostile.mutate import in_memory
from checkpoints.artifact import write_json
from checkpoints.errors import UserError, guarded

LONGEST = 1000
"""Characters of a message."""
HOSTILE = (
    *("0_1", "３", "-３.5", "nan", "inf", "-inf", "1e999", "3.5e38", "0x1p3", "1e", "--1", "1 2", "True", "None", "²"),
    *("9" * 5000, "0." + "0" * 5000 + "1", "-1e-999", "1.00000001", "-5.0000000001", "2.7", "1,5", '"1"', "=1+1", "‐1"),
    *("\u0660", "1\u00a0", "\u200b1", "1;2", "[1]", "{}", "-2", "-1", "8", "9999999999", "0", "", " "),
    *(
        "a" * 5000,
        "../../x",
        "/etc/passwd",
        ".x",
        "\u202e1",
        "é",
        "e\u0301",
        "🙂",
        "0,5",
        "1e3",
        "1.",
        ".5",
        "+1",
        "00001",
    ),
)
FOREIGN = (
    *(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\x1f\x8b\x08\0\0\0\0\0", b"PK\x03\x04", b"PAR1\0\0PAR1", b"\x93NUMPY\x01\0"),
    *(b"<!DOCTYPE html><html><body>404</body></html>\n", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
)
"""Beginnings of files of other kinds, and what a download leaves that failed."""
JUNK = (
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\x1a",
    b"\x0c",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"\r",
    b"\n",
    b'"',
    b",",
    b"\t",
)
JSON_JUNK: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2.5,
        10**30,
        1e308,
        "",
        "x",
        "3",
        [],
        {},
        [1],
        {"a": 1},
        [[[]]],
        "\ud800",
        "a" * 3000,
    ),
    *(float("nan"), float("inf"), "../../x", ["a", 1], {"": None}),
)


def in_a_cell(data: bytes, rng: random.Random) -> bytes:
    """Another content of one cell."""
    lines = data.decode().split("\n")
    row = rng.randrange(len(lines))
    cells = lines[row].split(",")
    cells[rng.randrange(len(cells))] = rng.choice(HOSTILE)
    lines[row] = ",".join(cells)
    return "\n".join(lines).encode()


def in_a_word(data: bytes, rng: random.Random) -> bytes:
    """One digit or sign replaced by, or followed by, something that looks like it."""
    text = data.decode()
    places = [place for place, letter in enumerate(text) if letter.isdigit() or letter in ".-"]
    place = rng.choice(places or [0])
    return (text[:place] + rng.choice("３٣²_ ,.eE+-−\u200b\u00a0") + text[place + rng.randint(0, 1) :]).encode()


def flipped(data: bytes, rng: random.Random) -> bytes:
    """A few bits flipped."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def without_a_line(data: bytes, rng: random.Random) -> bytes:
    """A line lost, often the first."""
    lines = data.split(b"\n")
    lines.pop(rng.choice([0, rng.randrange(len(lines))]))
    return b"\n".join(lines)


def line_twice(data: bytes, rng: random.Random) -> bytes:
    """A line repeated."""
    lines = data.split(b"\n")
    line = rng.choice(lines)
    lines.insert(rng.randint(0, len(lines)), line)
    return b"\n".join(lines)


def with_junk(data: bytes, rng: random.Random) -> bytes:
    """Bytes put in somewhere that do not belong in a text."""
    place = rng.randint(0, len(data))
    return data[:place] + rng.choice(JUNK) + data[place:]


def spliced(data: bytes, rng: random.Random) -> bytes:
    """A piece of the text copied to another place."""
    start, place = rng.randint(0, len(data)), rng.randint(0, len(data))
    return data[:place] + data[start : start + rng.randint(1, 40)] + data[place:]


def in_json(data: bytes, rng: random.Random) -> bytes:
    """A value of a JSON text replaced, removed, or put in under another key."""
    try:
        content = json.loads(data)
    except ValueError:
        return flipped(data, rng)
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(value, (dict, list)):
                visit(value)

    if isinstance(content, (dict, list)):
        visit(content)
    if not places or rng.random() < 0.03:
        return json.dumps(rng.choice(JSON_JUNK)).encode()
    node, key = rng.choice(places)
    if rng.random() < 0.25:
        del node[key]
    elif isinstance(node, dict) and rng.random() < 0.2:
        node[rng.choice(["", "x", "\ud800", "a" * 3000, "../x", ".x"])] = rng.choice([node[key], *JSON_JUNK])
    else:
        node[key] = rng.choice(JSON_JUNK)
    return json.dumps(content).encode()


def key_twice(data: bytes, rng: random.Random) -> bytes:
    """A key of a JSON object stands in it twice, with another value."""
    places = [match.start() for match in re.finditer(rb'\{(?=")', data)]
    if not places:
        return b""
    place = rng.choice(places) + 1
    key = data[place:].split(b":", 1)[0]
    return data[:place] + key + b": null, " + data[place:]


def columns_swapped(data: bytes, rng: random.Random) -> bytes:
    """Two columns exchanged, with their names."""
    lines = [line.split(",") for line in data.decode().split("\n")]
    one, two = rng.sample(range(max(len(lines[0]), 2)), 2)
    for cells in lines:
        if max(one, two) < len(cells):
            cells[one], cells[two] = cells[two], cells[one]
    return "\n".join(map(",".join, lines)).encode()


def rows_shuffled(data: bytes, rng: random.Random) -> bytes:
    """The lines under the first in another order."""
    first, *rest = data.rstrip(b"\n").split(b"\n")
    rng.shuffle(rest)
    return b"\n".join([first, *rest])


def other_lines(data: bytes, rng: random.Random) -> bytes:
    """Ends of lines, letter case, or spaces as another program writes them, in places."""
    lines = data.split(b"\n")
    row = rng.choice([0, rng.randrange(len(lines))])
    ways = (bytes.upper, bytes.title, lambda line: line + b"\r", lambda line: b" " + line, lambda line: line + b",")
    lines[row] = rng.choice([*ways, lambda line: line.replace(b",", b" , "), lambda line: b'"' + line + b'"'])(
        lines[row]
    )
    return b"\n".join(lines)


Mutator = Callable[[bytes, random.Random], bytes]
SAME: dict[str, Mutator] = {
    "byte-order mark": lambda data, rng: b"\xef\xbb\xbf" + data,
    "CRLF": lambda data, rng: data.replace(b"\n", b"\r\n"),
    "CR": lambda data, rng: data.replace(b"\n", b"\r"),
    "blank end": lambda data, rng: data + b"\n\n",
}
"""These must be read like the original."""
REFUSED: dict[str, Mutator] = {
    "UTF-16": lambda data, rng: data.decode().encode(rng.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32"])),
    "NUL": lambda data, rng: data[: len(data) // 2] + b"\0" + data[len(data) // 2 :],
    "Latin-1": lambda data, rng: data + "é".encode("latin-1"),
    "empty": lambda data, rng: b"",
    "foreign": lambda data, rng: rng.choice(FOREIGN) + rng.choice([b"", data, rng.randbytes(99)]),
    "another encoding": lambda data, rng: data.decode().encode(rng.choice(["cp500", "utf-7"])) + b"\xa4",
    "nested": lambda data, rng: b"[" * 100_000,
    "nested objects": lambda data, rng: b'{"a":' * 100_000,
}
"""These must be refused."""
JSON_REFUSED: dict[str, Mutator] = {
    "key twice": key_twice,
    "not quite JSON": lambda data, rng: rng.choice(
        [data[:-1] + b",}", data.replace(b'"', b"'"), b"// x\n" + data, data * 2]
    ),
}
"""These must be refused in JSON files."""
ANY: dict[str, Mutator] = {
    "cell": in_a_cell,
    "word": in_a_word,
    "bits": flipped,
    "lost line": without_a_line,
    "line twice": line_twice,
    "junk": with_junk,
    "splice": spliced,
    "cut": lambda data, rng: data[: rng.randint(0, len(data))],
    "JSON": in_json,
    "columns": columns_swapped,
    "shuffled": rows_shuffled,
    "whole": lambda data, rng: data,
    "other lines": other_lines,
}
"""These are read, if they are, as the plain parser reads them."""
BINARY = ("whole", "bits", "junk", "splice", "cut", "lost line", "empty")
"""Those that make sense in files that are no texts."""


@dataclass(frozen=True)
class Faults:
    """Options of the run."""

    texts: int = 20_000
    """Number of texts."""
    seed: int = 0
    """Seed of the texts."""
    out: Path | None = None
    """Write the counts to this JSON file."""


def one_text(reader: Reader, mutator: str, rng: random.Random) -> tuple[str, str]:
    """Read one damaged text: what came of it (`read`, `refused`, or a fault) and what it was, if it is a fault."""
    made = reader.make(rng)
    made = made.encode() if isinstance(made, str) else made
    data = damaged(made, mutator, rng)
    outcome, said, found = attempt(reader, data)
    if outcome == "refused" and (len(said) > LONGEST or said.count("\n") > 2 or not said.strip()):
        outcome = "long message"
    elif outcome == "refused" and mutator in SAME:
        outcome = "refused wrongly"
    elif outcome == "read" and mutator in REFUSED | JSON_REFUSED:
        outcome = "taken"
    elif outcome == "read" and mutator in SAME and found != attempt(reader, made)[2]:
        outcome = "wrong value"
    elif outcome == "read" and reader.expect is not None:
        try:
            expected = reader.expect(data.decode("utf-8-sig"))
            outcome, said = ("read", "") if expected == found else ("wrong value", f"{found!r:.200} {expected!r:.200}")
        except (AssertionError, ValueError, IndexError) as error:
            outcome, said = "taken", repr(error)
    return outcome, f"{said[:300]} {data[:300]!r}"


def damaged(data: bytes, mutator: str, rng: random.Random) -> bytes:
    """A text changed by a mutator, and sometimes by a second one."""
    if mutator not in ANY:
        return (SAME | REFUSED | JSON_REFUSED)[mutator](data, rng)
    for name in (mutator, *([rng.choice([*ANY])] if rng.random() < 0.2 else [])):
        try:
            data = ANY[name](data, rng)
        except UnicodeDecodeError:  # it has been damaged too much for this one
            break
    return data


def attempt(reader: Reader, data: bytes) -> tuple[str, str, Any]:
    """Read bytes: `read`, `refused` or an exception's name; the message; what was read."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        path = Path(folder) / reader.name
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                return "read", "", reader.read(path)
        except UserError as error:
            return "refused", str(error).replace(folder, ""), None
        except Exception as error:
            return "uncaught", f"{type(error).__name__}: {error}"[:200], None


def mutators_of(reader: Reader) -> Sequence[str]:
    """What is done to files of a kind; what may be read is done more often."""
    if reader.name.endswith((".parquet", ".npy")):
        return BINARY
    return [*SAME, *REFUSED, *[*ANY] * 4, *(JSON_REFUSED if reader.name.endswith(".json") else ())]


def run(texts: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Read damaged texts: counts of outcomes by kind of file, and every fault as text."""
    rng = random.Random(seed)
    counts: dict[str, Counter[str]] = {name: Counter() for name in READERS}
    faults = []
    for number in range(texts):
        kind = [*READERS][number % len(READERS)]
        mutator = rng.choice(mutators_of(READERS[kind]))
        outcome, said = one_text(READERS[kind], mutator, rng)
        counts[kind][outcome] += 1
        if outcome not in ("read", "refused"):
            faults.append(f"{kind}, {mutator}: {outcome}: {said}")
    return counts, faults


def main(config: Faults) -> None:
    """Print the table of outcomes; fails on any fault.

    Raises:
        UserError: There was one.
    """
    counts, faults = run(config.texts, config.seed)
    print("\n".join(faults[:200]))
    for kind, outcomes in counts.items():
        print(f"{kind:24}" + "  ".join(f"{name} {count}" for name, count in sorted(outcomes.items())))
    total = sum(counts.values(), Counter())
    if config.out:
        write_json(config.out, {"seed": config.seed, "kinds": counts, "total": total})
    print(f"{'all':24}" + "  ".join(f"{name} {count}" for name, count in sorted(total.items())))
    if faults:
        raise UserError(f"{len(faults)} of {config.texts} texts were neither refused nor read as they should be")


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Faults)))

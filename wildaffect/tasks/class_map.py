"""From the class names and numbers that data sets use to the eight expressions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from checkpoints.artifact import read_json
from checkpoints.decimals import decimal
from checkpoints.errors import UserError
from checkpoints.reading import shown
from wildaffect.tasks.task import EXPRESSIONS

# In lower case; None: frames of that class are left out. Contempt has no class of its own here: it counts as "Other".
SYNONYMS: dict[str, str | None] = {
    **{name.lower(): name for name in EXPRESSIONS},
    "angry": "Anger",
    "disgusted": "Disgust",
    "afraid": "Fear",
    "fearful": "Fear",
    "happy": "Happiness",
    "joy": "Happiness",
    "sad": "Sadness",
    "surprised": "Surprise",
    "contempt": "Other",
    **dict.fromkeys(("", "-1", "nf", "no face", "no-face", "none", "uncertain", "unknown")),
}


class ClassMap:
    """Maps class names to the eight expressions; None means that frames of that class are left out.

    Args:
        path: JSON object from class names to expressions or null. Names it does not list keep their usual meaning.

    Attributes:
        used: What each name found among the labels was taken for.
        notes: What was left out of the labels, and why.

    Raises:
        UserError: The file is not such an object.
    """

    def __init__(self, path: Path | None = None) -> None:
        given = {} if path is None else read_json(path)
        if not isinstance(given, dict):
            raise UserError(f'{path}: expected a JSON object such as {{"contempt": "Other", "unknown": null}}')
        self._given: dict[str, str | None] = {}
        for name, target in given.items():
            if target is not None and target not in EXPRESSIONS:
                known = ", ".join(EXPRESSIONS)
                raise UserError(f"{path}: {shown(name)} is mapped to {shown(target)}, which is none of {known}")
            if _key(name) in self._given:
                raise UserError(f"{path}: {shown(name)} appears twice, in another form: keep one")
            self._given[_key(name)] = target
        self.used: dict[str, str | None] = {}
        self.notes: list[str] = []

    def knows(self, name: str) -> bool:
        """Whether a class name has a meaning."""
        return _key(name) in self._given or _key(name) in SYNONYMS

    def __call__(self, name: object, where: object) -> int | None:
        """Number of the expression that a class name means, or None.

        Raises:
            UserError: The name has no meaning; `where` is part of the message.
        """
        name = str(name)
        if not self.knows(name):
            example = f'{{"{name[:60]}": "Other"}}'
            raise UserError(
                f"{where} has the class {shown(name)}, which is none of the eight expressions "
                f"({', '.join(EXPRESSIONS)}): say what it is with --class-map FILE, a JSON object such as "
                f"{example} (null leaves it out)"
            )
        key = _key(name)
        return self._take(name, self._given[key] if key in self._given else SYNONYMS[key])

    def of_number(self, number: float, where: object) -> int | None:
        """Number of the expression that a class number means, or None for -1.

        Numbers are those of the challenge (0 to 7) unless the map says otherwise, by number or by the class's name.

        Raises:
            UserError: The number is neither -1 nor a class, and the map does not list it.
        """
        text = f"{number:g}"
        if text in self._given:
            return self._take(text, self._given[text])
        if number == -1:
            return None
        if number not in range(len(EXPRESSIONS)):
            raise UserError(
                f"{where}: {text} is not a valid expr label (0 to 7, or -1 for not annotated): say what it is with "
                f'--class-map FILE, a JSON object such as {{"{text}": "Other"}} (null leaves it out)'
            )
        name = EXPRESSIONS[int(number)].lower()
        return self._take(name, self._given[name]) if name in self._given else int(number)

    def lines(self) -> list[str]:
        """What the names found were taken for, and the notes, as text."""
        return [*taken_for(self.used), *(f"note: {note}" for note in dict.fromkeys(self.notes))]

    def _take(self, name: str, target: str | None) -> int | None:
        self.used[name] = target
        return None if target is None else EXPRESSIONS.index(target)


def taken_for(used: Mapping[str, str | None]) -> list[str]:
    """What class names were taken for, one line each."""
    return [f"class {name!r} is {target or 'left out'}" for name, target in sorted(used.items())]


def _key(name: str) -> str:
    """Names in lower case, numbers in one form: 3, 3.0 and 03 are the same class."""
    number = decimal(name)
    return name.lower() if number is None else f"{number:g}"

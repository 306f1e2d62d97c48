"""Draws on and beside the frames of an annotated video."""

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from wildaffect.inference.table import BOX, flags, matrix, rows_of, subject_name, subjects, times_of, units_of
from wildaffect.report.palette import EXPRESSION_COLOURS, readable_on, rgb
from wildaffect.tasks import AUS, EXPRESSIONS

WIDTH = 260
"""Width of the panel in pixels."""
LEAST_HEIGHT = 440
INK, SOFT, DIM, PAPER = (236, 238, 241), (140, 146, 154), (96, 102, 110), (24, 26, 30)
PLAIN_BOX = "#ECEEF1"
CIRCLE = (130, 112, 88)  # centre and radius of the circumplex
TRAIL = 2.0
"""Seconds for which valence and arousal stay visible."""


@dataclass
class Person:
    """One subject's rows, to look up by frame.

    Attributes:
        name: Name that is shown.
        number: The same for a place with room for two letters; empty if there is only one person.
        rows: Frame number -> row.
        time_s: `[T]`.
        face: `[T]` bool.
        box: `[T, 4]` in pixels of the source; NaN without a face, and of ready crops.
        va: `[T, 2]`; NaN without a face; None if not predicted.
        expression: `[T]` labels with their own probability, empty without a face; None if not predicted.
        aus: `[T, U]` probabilities; None if not predicted.
        decided: `[T, U]` bool, true for active AUs.
        units: `[U]` names of the AUs.
    """

    name: str
    number: str
    rows: dict[int, int]
    time_s: np.ndarray
    face: np.ndarray
    box: np.ndarray
    va: np.ndarray | None
    expression: list[str] | None
    aus: np.ndarray | None
    decided: np.ndarray | None
    units: list[str]


def people_of(table: pa.Table) -> list[Person]:
    """Read the subjects of a table."""
    found = []
    names = set(table.column_names)
    everyone = subjects(table)
    for subject in everyone:
        rows = rows_of(table, subject)
        expression = None
        if "expression" in names:
            # A mode filter may choose another label than the most probable one.
            sure = {label: matrix(rows, [f"p_{label}"])[:, 0] for label in EXPRESSIONS}
            labels = rows["expression"].to_pylist()
            expression = [f"{label} {sure[label][row]:.2f}" if label else "" for row, label in enumerate(labels)]
        units = units_of(table)
        found.append(
            Person(
                name=subject_name(subject),
                number=subject_name(subject).removeprefix("person ") if len(everyone) > 1 else "",
                rows={frame: row for row, frame in enumerate(rows["frame"].to_pylist())},
                time_s=times_of(rows),
                face=flags(rows, "face"),
                box=matrix(rows, BOX),
                va=matrix(rows, ["valence", "arousal"]) if "valence" in names else None,
                expression=expression,
                aus=matrix(rows, [f"p_{name}" for name in units]) if units else None,
                decided=matrix(rows, units) > 0.5 if units else None,
                units=units,
            )
        )
    return found


class Painter:
    """Draws the frames of one video.

    Args:
        people: Who is in it.
        width: Its width in pixels.
        height: Its height in pixels.
        footer: A line at the bottom of the panel.
        thresholds: From where each AU counts as active, `[12]`.
    """

    def __init__(
        self, people: list[Person], width: int, height: int, footer: str, thresholds: np.ndarray | None = None
    ) -> None:
        self.people = people
        self.units = people[0].units if people else []
        given = np.full(len(AUS), 0.5) if thresholds is None else thresholds
        self.thresholds = [float(given[AUS.index(name)]) for name in self.units]
        scale = min(max(height, LEAST_HEIGHT), 720) / height
        self.scale = min(scale, 1280 / width)
        self.width = max(2, round(width * self.scale / 2) * 2)
        self.height = max(2, round(height * self.scale / 2) * 2)
        # A very wide picture is lower than the panel: it is placed at the top.
        self.size = (self.width + WIDTH, max(self.height, LEAST_HEIGHT))
        self.blank = self._blank(footer)

    def _blank(self, footer: str) -> np.ndarray:
        panel = np.full((self.size[1], WIDTH, 3), PAPER, np.uint8)
        x, y, radius = CIRCLE
        cv2.circle(panel, (x, y), radius, SOFT, 1, cv2.LINE_AA)
        cv2.line(panel, (x - radius, y), (x + radius, y), SOFT, 1)
        cv2.line(panel, (x, y - radius), (x, y + radius), SOFT, 1)
        write(panel, "arousal", (x, 4), 12, SOFT, centre=True)
        write(panel, "valence", (x + radius - 50, y + 4), 12, SOFT)
        if any(person.aus is not None for person in self.people):
            for number, name in enumerate(self.units):
                write(panel, name, (14, 241 + 14 * number), 11, SOFT)
        write(panel, footer, (14, self.size[1] - 20), 11, INK if "synthetic" in footer else SOFT)
        return panel

    def draw(self, image: np.ndarray, frame: int, seconds: float) -> np.ndarray:
        """Draw the picture and the panel of a frame: uint8 RGB `[H, W, 3]` -> `[size[1], size[0], 3]`."""
        out = np.empty((self.size[1], self.size[0], 3), np.uint8)
        picture, below, panel = out[: self.height, : self.width], out[self.height :, : self.width], out[:, self.width :]
        filter_ = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        cv2.resize(image, (self.width, self.height), dst=picture, interpolation=filter_)
        below[:], panel[:] = PAPER, self.blank
        write(panel, clock(seconds), (14, 4), 12, INK)
        leader: tuple[float, Person, int] | None = None
        for person in self.people:
            row = person.rows.get(frame)
            if row is None:
                continue
            self._trail(panel, person, row)
            if not person.face[row]:
                continue
            size = 0.0
            if np.isfinite(person.box[row]).all():  # ready crops have no boxes
                self._box(picture, person, row)
                size = float(person.box[row, 2] - person.box[row, 0])
            if leader is None or size > 1.3 * leader[0]:  # the main person, unless another face is clearly larger
                leader = size, person, row
        if leader:
            self._details(panel, leader[1], leader[2])
        else:
            write(panel, "no face", (14, 212), 14, SOFT)
        return out

    def _box(self, picture: np.ndarray, person: Person, row: int) -> None:
        x1, y1, x2, y2 = (round(float(value) * self.scale) for value in person.box[row])
        expression = person.expression[row] if person.expression else ""
        colour = EXPRESSION_COLOURS.get(expression.split(" ")[0], PLAIN_BOX)
        for edge, thick in ((PAPER, 4), (rgb(colour), 2)):  # a dark edge, so that it shows on any picture
            cv2.rectangle(picture, (x1, y1), (x2, y2), edge, thick, cv2.LINE_AA)
        label = f"{person.number}  {expression}".strip()
        if label:
            mask = glyphs(label, 14)
            top = y1 - mask.shape[0] - 4 if y1 > mask.shape[0] + 4 else y2 + 2
            left = min(max(x1, 0), max(self.width - mask.shape[1] - 6, 0))
            cv2.rectangle(picture, (left, top), (left + mask.shape[1] + 6, top + mask.shape[0] + 3), rgb(colour), -1)
            write(picture, label, (left + 3, top + 1), 14, rgb(readable_on(colour)))

    def _trail(self, panel: np.ndarray, person: Person, row: int) -> None:
        if person.va is None:
            return
        x, y, radius = CIRCLE
        start = int(np.searchsorted(person.time_s, person.time_s[row] - TRAIL))
        places = [
            (x + round(valence * radius), y - round(arousal * radius)) if np.isfinite(valence) else None
            for valence, arousal in person.va[start : row + 1].tolist()
        ]
        for number, (before, after) in enumerate(pairwise(places)):
            if before and after:
                fade = 0.25 + 0.75 * (number + 1) / len(places)
                colour = tuple(int(fade * c + (1 - fade) * p) for c, p in zip(INK, PAPER, strict=True))
                cv2.line(panel, before, after, colour, 1, cv2.LINE_AA)
        if places and places[-1]:
            place = places[-1]
            cv2.circle(panel, place, 8 if person.number else 5, INK, -1, cv2.LINE_AA)
            write(panel, person.number, (place[0], place[1] - 7), 11, PAPER, centre=True)

    def _details(self, panel: np.ndarray, person: Person, row: int) -> None:
        title = person.expression[row] if person.expression else ""
        if len(self.people) > 1:
            title = f"{person.name}: {title}" if title else person.name
        write(panel, title, (14, 208), 14, INK)
        if person.va is not None:
            valence, arousal = person.va[row]
            write(panel, f"V {valence:+.2f}  A {arousal:+.2f}", (14, 225), 12, INK)
        if person.aus is None or person.decided is None:
            return
        for number in range(len(self.units)):
            y = 244 + 14 * number
            length = round(170 * float(person.aus[row, number]))
            cv2.rectangle(panel, (60, y), (230, y + 9), (44, 47, 52), -1)
            cv2.rectangle(panel, (60, y), (60 + length, y + 9), INK if person.decided[row, number] else DIM, -1)
            mark = 60 + round(170 * self.thresholds[number])
            cv2.line(panel, (mark, y - 1), (mark, y + 10), PAPER, 3)
            cv2.line(panel, (mark, y - 1), (mark, y + 10), INK, 1)


def clock(seconds: float) -> str:
    """A time as on a player, to the hundredth: `0:03.59`, `1:00:03.59`."""
    hundredths = round(abs(seconds) * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours = f"{minutes // 60}:{minutes % 60:02d}" if minutes >= 60 else str(minutes)
    return f"{'-' if seconds < 0 else ''}{hours}:{rest // 100:02d}.{rest % 100:02d}"


def write(
    image: np.ndarray, text: str, place: tuple[int, int], size: int, colour: tuple[int, ...], *, centre: bool = False
) -> None:
    """Write a line of text; `place` is its top left corner, or the middle of its top edge if `centre`."""
    mask = glyphs(text, size)
    x, y = place[0] - (mask.shape[1] // 2 if centre else 0), place[1]
    x, y = max(x, 0), max(y, 0)
    mask = mask[: max(image.shape[0] - y, 0), : max(image.shape[1] - x, 0), None]
    part: Any = image[y : y + mask.shape[0], x : x + mask.shape[1]]
    part[:] = (part * (1 - mask) + np.array(colour, np.float32) * mask).astype(np.uint8)


@lru_cache(maxsize=2048)
def glyphs(text: str, size: int) -> np.ndarray:
    """Rasterise a line of text: float32 `[H, W]` in 0..1.

    Numbers change with every frame, so the line is put together from letters; scripts that join them are drawn whole.
    """
    letters = list(text) if text.isascii() else [text]
    places = np.cumsum([0.0, *(advance(*pair, size) for pair in pairwise([*letters, ""]))])
    line = np.zeros((size + size // 3, max(1, math.ceil(places[-1]))), np.float32)
    for letter, place in zip(letters, places, strict=False):
        part = line[:, math.floor(place + 0.5) :]
        mask = letter_mask(letter, size)[:, : part.shape[1]]
        np.maximum(part[:, : mask.shape[1]], mask, out=part[:, : mask.shape[1]])
    return line


@lru_cache(maxsize=2048)
def letter_mask(letter: str, size: int) -> np.ndarray:
    """A rasterised letter, float32 `[H, W]` in 0..1."""
    picture = Image.new("L", (max(1, math.ceil(font(size).getbbox(letter)[2])), size + size // 3))
    ImageDraw.Draw(picture).text((0, 0), letter, 255, font(size))
    return np.asarray(picture, np.float32) / 255


@lru_cache(maxsize=8192)
def advance(letter: str, following: str, size: int) -> float:
    """How far the next letter stands from a letter, in pixels."""
    return font(size).getlength(letter + following) - font(size).getlength(following)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib."""
    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)

"""Colours that people with any colour vision can tell apart (Okabe & Ito 2008). Each means the same everywhere."""

from wildaffect.tasks import EXPRESSIONS

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#8A8A8A"
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY, YELLOW)
VALENCE, AROUSAL = BLUE, RED
EXPRESSION_COLOURS = dict(zip(EXPRESSIONS, (GREY, RED, GREEN, PURPLE, ORANGE, BLUE, SKY, YELLOW), strict=True))
SEQUENTIAL = "cividis"


def rgb(colour: str) -> tuple[int, int, int]:
    """Convert `#RRGGBB` to three numbers in 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)

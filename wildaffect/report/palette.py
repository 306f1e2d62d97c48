"""The colours of every page, plot and video. Each means one thing, to people with any colour vision.

The expressions, valence, arousal and the page itself, light or dark, were chosen together by a search that maximised
their smallest difference (CIEDE2000) in normal vision and without red, green or blue cones; the tests measure it.
"""

from wildaffect.tasks import EXPRESSIONS

EXPRESSION_COLOURS = dict(
    zip(
        EXPRESSIONS,
        ("#595C54", "#921802", "#AEC99A", "#8B68FA", "#FEE01B", "#083592", "#49D8FE", "#1C9B9B"),
        strict=True,
    )
)
VALENCE, AROUSAL = "#E13C80", "#988A01"
PAPER, NIGHT = "#FFFFFF", "#1C1E22"
"""Backgrounds of pages in the light and in the dark."""
PLAIN, MARK, GREY = "#4A6785", "#111111", "#8A8A8A"
"""What has no meaning of its own: bars and curves, the marks on them, and axes."""
SEQUENTIAL = "cividis"


def rgb(colour: str) -> tuple[int, int, int]:
    """Convert `#RRGGBB` to three numbers in 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def readable_on(colour: str) -> str:
    """Black or white, whichever is easier to read on a background (WCAG 2 contrast)."""
    red, green, blue = (((part / 255 + 0.055) / 1.055) ** 2.4 for part in rgb(colour))
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#FFFFFF"

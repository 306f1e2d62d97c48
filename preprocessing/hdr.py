"""High dynamic range (PQ and HLG, ITU-R BT.2100) to standard range."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

PQ, HLG = 16, 18
"""Transfer characteristics of ITU-T H.273."""
BT2020 = 9
WHITE_NITS = 203
"""Luminance of paper white in PQ; in HLG it stands at 75 % (ITU-R BT.2408)."""
KNEE = 0.75
"""Light above this share of paper white is compressed, so that highlights keep some detail."""
GAMMA = 2.2
TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # ITU-R BT.2087


@dataclass(frozen=True)
class ToneMapper:
    """Maps HDR pictures to standard range.

    Attributes:
        name: `PQ` or `HLG`.
        light: Light of each 16-bit value, relative to paper white [65536].
        matrix: From the primaries of the pictures to those of BT.709 [3, 3].
    """

    name: str
    light: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, context: Any) -> "ToneMapper | None":
        """What a video's codec context asks for; None if it is not HDR."""
        signal = np.linspace(0, 1, 65536)
        if context.color_trc == PQ:
            power = signal ** (1 / 78.84375)
            light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
            name, light = "PQ", light * 10_000 / WHITE_NITS
        elif context.color_trc == HLG:
            name, light = "HLG", _hlg(signal) / float(_hlg(np.array(0.75)))
        else:
            return None
        matrix = TO_BT709 if context.color_primaries == BT2020 else np.eye(3, dtype=np.float32)
        return cls(name, light.astype(np.float32), matrix)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Map RGB uint16 [H, W, 3] to uint8 [H, W, 3]."""
        light = cv2.transform(self.light[image], self.matrix).clip(0)
        bright = KNEE + (1 - KNEE) * (1 - np.exp((KNEE - light) / (1 - KNEE)))
        return np.rint(255 * np.where(light > KNEE, bright, light) ** (1 / GAMMA)).astype(np.uint8)


def _hlg(signal: np.ndarray) -> np.ndarray:
    """Light of an HLG signal, both in 0..1."""
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)

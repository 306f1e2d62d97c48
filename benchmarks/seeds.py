"""Scores of one setting with several seeds, as the studies record them."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def over_seeds(scores: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, and the scores themselves."""
    return {"mean": float(np.mean(scores)), "std": float(np.std(scores)), "seeds": scores}

"""One head and one person in a running video: the newest frame is predicted from those before it."""

from collections import deque

import numpy as np
import torch

from checkpoints.errors import UserError
from temporal.heads import Head
from temporal.recipes import Architecture
from temporal.smoothing import RAW

HELD = 512
"""Frames whose values are kept for smoothing."""


def framewise(a: Architecture) -> bool:
    """Whether a head predicts every frame from that frame alone."""
    return a.readout == "frames" and not (a.tcn_channels or a.layers or a.deviation)


def causal(a: Architecture) -> bool:
    """Whether a head predicts a frame without any later one."""
    past_tcn, past_attention = a.tcn_causal or not a.tcn_channels, a.attention_causal or not a.layers
    return a.readout == "last" or framewise(a) or (past_tcn and past_attention and (a.tcn_causal or not a.deviation))


class LiveHead:
    """The frames of one person that a head needs, and its values for the newest.

    Smoothing filters are applied to the values so far, the newest of which stands for those to come.

    Raises:
        UserError: The head looks ahead.
    """

    def __init__(self, head: Head) -> None:
        a = self.architecture = head.architecture
        if not causal(a):
            raise UserError(
                f"the {head.name} head (recipe {head.recipe}) predicts a frame from later ones too, which a running "
                "video does not have yet: train one with the recipe ours-causal or framewise, or predict the finished "
                "video"
            )
        self.head = head
        length = 1 if framewise(a) else a.window
        self._features: deque[np.ndarray] = deque(maxlen=length)
        self._valid: deque[np.ndarray] = deque(maxlen=length)
        self._values: dict[str, deque[np.ndarray]] = {task.name: deque(maxlen=HELD) for task in head.tasks}

    def skip(self) -> None:
        """Go on by a frame without a face: the last features and values stay."""
        for past in (self._features, *self._values.values()):
            past.append(past[-1])
        self._valid.append(np.zeros_like(self._valid[-1]))

    @torch.inference_mode()
    def step(self, features: np.ndarray, rate: float) -> dict[str, np.ndarray]:
        """Predict the next frame.

        Args:
            features: `[D]`, of the head's caches side by side; a running video has no sound.
            rate: Frames per second.

        Returns:
            Task name -> values `[out_dim]`, smoothed.
        """
        self._features.append(features)
        self._valid.append(np.array([not item.sound for item in self.head.inputs]))
        rows, flags = np.stack(self._features), np.stack(self._valid)
        if self.architecture.readout == "last":  # such windows repeat the first frame
            before = self.architecture.window - len(rows)
            rows, flags = (np.pad(part, ((before, 0), (0, 0)), mode="edge") for part in (rows, flags))
        network = self.head.network
        given = (
            torch.from_numpy(part)[None].to(network.mean.device) for part in (rows, flags, np.ones(len(rows), bool))
        )
        outputs = network(*given)[0, -1].float()
        smoothed = {}
        for task in self.head.tasks:
            values = task.activate(self.head.split(outputs)[task.name]).cpu().numpy()
            if task.name == "expr" and self.head.prior is not None:
                values = self.head.prior.restated(values)
            past = self._values[task.name]
            past.append(values)
            smoothed[task.name] = self.head.smoothing.get(task.name, RAW).on_values(np.stack(past), rate)[-1]
        return smoothed

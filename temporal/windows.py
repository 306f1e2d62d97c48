"""Windows over sequences: which frames they cover, and how their predictions are averaged to one per frame.

All features are in one flat table. A sequence is a span (start, length) of its rows, a window is (sequence, first row),
and a batch of windows is an array of row numbers, so only the batch itself is copied. Every frame of every sequence is
in at least one window. A sequence shorter than a window is padded, and the padding is masked.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch


def window_starts(length: int, size: int, stride: int) -> np.ndarray:
    """First rows of the windows over one sequence: one every `stride` rows, and the last one right-aligned.

    Args:
        length: rows of the sequence.
        size: rows per window.
        stride: rows between window starts, at most `size`.

    Returns:
        `[K]` ascending, from 0. Together the windows cover all rows, and only the window of a sequence shorter than
        `size` extends beyond the end.

    Raises:
        ValueError: the stride is longer than a window, so that rows would be in none.
    """
    if stride > size:
        raise ValueError(f"windows of {size} rows, one every {stride}, leave out rows")
    if length <= size:
        return np.zeros(min(length, 1), np.int64)
    starts = np.arange(0, length - size, stride)
    return np.append(starts, length - size)


@dataclass(frozen=True)
class Windows:
    """Windows over several sequences.

    Attributes:
        size: rows per window.
        sequence_start: `[K]` first table row of the window's sequence.
        sequence_length: `[K]` its length.
        first: `[K]` the window's first row within the sequence; may be negative in `ending` windows.
        ending: windows end at the frame that they predict (min2024). Rows before the sequence repeat its first row, and
            only the last row counts.
    """

    size: int
    sequence_start: np.ndarray
    sequence_length: np.ndarray
    first: np.ndarray
    ending: bool = False

    @classmethod
    def cover(cls, spans: list[tuple[int, int]], size: int, stride: int, ending: bool = False) -> "Windows":
        """Cover the spans (start, length) with overlapping windows, or with one `ending` at every `stride`-th frame."""
        if ending:
            firsts = [np.arange(0, length, stride) - size + 1 for _, length in spans]
        else:
            firsts = [window_starts(length, size, stride) for _, length in spans]
        counts = [len(first) for first in firsts]
        starts, lengths = (np.repeat([span[i] for span in spans], counts).astype(np.int64) for i in (0, 1))
        return cls(size, starts, lengths, np.concatenate([np.zeros(0, np.int64), *firsts]), ending)

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: np.ndarray | slice) -> "Windows":
        return Windows(
            self.size, self.sequence_start[index], self.sequence_length[index], self.first[index], self.ending
        )

    def shifted(self, offsets: np.ndarray) -> "Windows":
        """The same windows, shifted by `offsets` `[K]` rows but kept inside their sequences."""
        last = self.sequence_length - self.size
        least = 1 - self.size if self.ending else 0
        return replace(self, first=np.clip(self.first + offsets, least, last if self.ending else np.maximum(last, 0)))

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Table rows `[K, size]`, and `[K, size]` bool that is false beyond the sequence.

        Rows beyond the sequence are replaced by its nearest row, so that every row exists. In `ending` windows they
        count as inside, because those windows are padded by repeating the first frame.
        """
        local = self.first[:, None] + np.arange(self.size)
        last = self.sequence_length[:, None] - 1
        inside = np.ones_like(local, bool) if self.ending else (local >= 0) & (local <= last)
        return self.sequence_start[:, None] + np.clip(local, 0, last), inside

    def predicted(self) -> np.ndarray:
        """`[K, size]` bool: rows whose outputs count."""
        if not self.ending:
            return self.rows()[1]
        predicted = np.zeros((len(self), self.size), bool)
        predicted[:, -1] = True
        return predicted


class FrameAverage:
    """Running mean of overlapping window predictions `[..., width]`, one row for each of the table's `frames`."""

    def __init__(self, frames: int, width: int, device: torch.device | str = "cpu") -> None:
        self.sum = torch.zeros(frames, width, device=device)
        self.count = torch.zeros(frames, 1, device=device)

    def add(self, rows: torch.Tensor, inside: torch.Tensor, values: torch.Tensor) -> None:
        """Add predictions `[K, size, width]` of the table rows `[K, size]` that are `inside`."""
        # A padded row repeats a real one, so its weight is 0. (Leaving it out would make shapes depend on data.)
        weight = inside.reshape(-1, 1).to(self.sum.dtype)
        flat = rows.reshape(-1)
        self.sum.index_add_(0, flat, values.reshape(len(flat), -1).to(self.sum.dtype) * weight)
        self.count.index_add_(0, flat, weight)

    def mean(self) -> torch.Tensor:
        """Means `[frames, width]`; NaN for a frame in no window."""
        return self.sum / self.count

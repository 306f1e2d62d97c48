import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from temporal.windows import FrameAverage, Windows, window_starts

spans = st.lists(st.integers(1, 700), min_size=1, max_size=5).map(
    lambda lengths: list(zip(np.cumsum([0, *lengths[:-1]]).tolist(), lengths, strict=True))
)


@given(st.integers(0, 2000), st.integers(1, 400), st.data())
def test_every_frame_is_covered_and_none_is_beyond(length, size, data):
    stride = data.draw(st.integers(1, size))
    starts = window_starts(length, size, stride)
    covered = np.zeros(length, int)
    for start in starts:
        covered[start : start + size] += 1
    assert (covered > 0).all()
    if length > size:
        assert starts[-1] + size == length and (np.diff(starts) > 0).all() and (np.diff(starts) <= stride).all()
    else:
        assert list(starts) == [0] * min(length, 1)


def test_the_papers_windows_keep_the_tail_and_short_videos():
    # upczww/abaw6 drops the last 99 frames of a 499-frame video's kind, and every video shorter than a window
    assert window_starts(499, 300, 200).tolist() == [0, 199]
    assert window_starts(299, 300, 200).tolist() == [0]
    assert window_starts(700, 300, 200).tolist() == [0, 200, 400]


@given(spans, st.integers(1, 60), st.data())
def test_averaging_windows_gives_every_frame_once(spans, size, data):
    stride = data.draw(st.integers(1, size))
    ending = data.draw(st.booleans())
    windows = Windows.cover(spans, size, 1 if ending else stride, ending)
    rows, inside = windows.rows()
    total = sum(length for _, length in spans)
    assert rows.min() >= 0 and rows.max() < total
    average = FrameAverage(total, 1)
    values = torch.from_numpy(rows).float()[..., None] * 2  # "predict" the row number
    average.add(torch.from_numpy(rows), torch.from_numpy(windows.predicted()), values)
    torch.testing.assert_close(average.mean()[:, 0], torch.arange(total).float() * 2)
    starts = dict(spans)
    for start, row, real in zip(windows.sequence_start, rows, inside, strict=True):
        assert (row >= start).all() and (row < start + starts[start]).all()  # no window leaves its sequence
        assert len(set(row[real])) == real.sum() or ending


def test_windows_that_end_at_the_frame_repeat_the_first_one():
    windows = Windows.cover([(10, 5)], 3, 1, ending=True)
    rows, inside = windows.rows()
    assert rows.tolist() == [[10, 10, 10], [10, 10, 11], [10, 11, 12], [11, 12, 13], [12, 13, 14]]
    assert inside.all() and windows.predicted()[:, -1].all() and windows.predicted().sum() == 5


@given(spans, st.integers(2, 60), st.integers(0, 2**31))
def test_shifted_windows_stay_in_their_sequences(spans, size, seed):
    windows = Windows.cover(spans, size, max(1, size // 2))
    rng = np.random.default_rng(seed)
    moved = windows.shifted(rng.integers(-size, size, len(windows)))
    _, inside = moved.rows()
    assert (inside.sum(axis=1) == np.minimum(size, moved.sequence_length)).all()


def test_a_frame_in_no_window_is_nan_not_zero():
    assert FrameAverage(2, 1).mean().isnan().all()


@pytest.mark.parametrize("length", [10, 50])
def test_overlapping_predictions_are_averaged(length):
    windows = Windows.cover([(0, length)], 20, 10)
    rows, inside = (torch.from_numpy(item) for item in windows.rows())
    average = FrameAverage(length, 1)
    values = torch.arange(len(windows)).float()[:, None, None].expand(-1, 20, 1)  # each window says its number
    average.add(rows, inside, values)
    expected = [np.mean([n for n, w in enumerate(windows.first) if w <= t < w + 20]) for t in range(length)]
    np.testing.assert_allclose(average.mean()[:, 0], expected)


def test_a_stride_that_leaves_frames_out_is_refused():
    with pytest.raises(ValueError, match="leave out rows"):
        window_starts(1000, 100, 128)


def test_shifted_ending_windows_still_end_inside_their_sequence():
    windows = Windows.cover([(0, 30)], 10, 5, ending=True)
    shifted = windows.shifted(np.full(len(windows), -2))
    assert (shifted.first + 9).tolist() == [0, 3, 8, 13, 18, 23]

"""Sound is read on the clock of the frames, whatever its rate, format and gaps."""

from itertools import groupby

import numpy as np
import pytest

from preprocessing.sound import RATE, read_sound
from preprocessing.video import read_times
from tests.preprocessing.movies import clicks_at, pattern, write_movie, write_talkie

EVERY = list(range(0, 2000, 40))


def heard(path):
    """Start and samples of each stretch, and what was reported."""
    said: list[str] = []
    pieces = list(read_sound(path, said.append))
    assert max((len(samples) for _, samples in pieces), default=0) < 2.5 * RATE
    stretches = groupby(pieces, key=lambda piece: piece[0])
    return [(start, np.concatenate([samples for _, samples in parts])) for start, parts in stretches], said


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mkv", "pcm_s16le", 8000),
        ("a.mov", "pcm_s16le", 44_100),
        ("a.mkv", "pcm_s16le", 16_000),
        ("a.avi", "pcm_s16le", 22_050),
        ("a.mp4", "aac", 48_000),
        ("a.mkv", "libopus", 48_000),
        ("a.ts", "mp2", 32_000),
    ],
)
def test_a_click_is_where_it_was(tmp_path, name, codec, rate):
    path = write_talkie(tmp_path / name, EVERY, [clicks_at([0.5, 1.7], rate, 2.0)], rate=rate, codec=codec)
    ((start, wave),), said = heard(path)
    loud = start + np.flatnonzero(np.abs(wave) > 0.3 * np.abs(wave).max()) / RATE
    offset = read_times(path)[0] if name.endswith(".ts") else 0.0  # transport streams have a clock of their own
    for click in (0.5, 1.7):
        near = loud[np.abs(loud - click - offset) < 0.2]
        assert abs(near.mean() - click - offset) < 0.006
    assert not said


def test_sound_that_starts_late_has_a_gap_and_ends_early(tmp_path):
    wave = clicks_at([0.5], 16_000, 1.2)
    path = write_talkie(tmp_path / "a.mkv", EVERY, [wave], rate=16_000, first_s=0.4, gap=(10_240, 14_336))
    ((first, one), (second, two)), _ = heard(path)
    assert first == pytest.approx(0.4, abs=0.001) and len(one) == pytest.approx(10_240, abs=2)
    assert second == pytest.approx(0.4 + 14_336 / 16_000, abs=0.001)
    assert second + len(two) / RATE == pytest.approx(1.6, abs=0.002)
    assert np.abs(one - wave[: len(one)]).max() < 1e-3


def test_no_sound_and_several_tracks(tmp_path):
    silent = write_movie(tmp_path / "a.mp4", [pattern(n) for n in range(5)])
    assert heard(silent) == ([], ["has no sound"])
    tracks = [clicks_at([0.5], 16_000, 1.0), clicks_at([0.8], 16_000, 1.0)]
    ((_, wave),), said = heard(write_talkie(tmp_path / "b.mkv", EVERY, tracks, rate=16_000))
    assert said == ["has 2 sound tracks: the first is used"]
    assert np.abs(wave).argmax() / RATE == pytest.approx(0.5, abs=0.003)
    (tmp_path / "c.mp4").write_bytes(b"no video")
    stretches, (problem,) = heard(tmp_path / "c.mp4")
    assert stretches == [] and "cannot be opened" in problem


def test_sound_goes_on_over_damaged_bytes(tmp_path):
    path = write_talkie(tmp_path / "a.mp4", EVERY, [clicks_at([0.2, 1.8], 48_000, 2.0)], rate=48_000, codec="aac")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 300] = bytes(300)
    path.write_bytes(content)
    ((first, before), (second, after)), (problem,) = heard(path)
    assert "damaged packets of sound" in problem
    assert first + len(before) / RATE + 0.01 < second < 1.5
    assert second + np.abs(after).argmax() / RATE == pytest.approx(1.8, abs=0.01)


def test_files_joined_into_one_go_on_as_their_frames_do(tmp_path):
    """Where the clock begins anew, the times of frames and sound go on."""
    part = write_talkie(tmp_path / "a.ts", EVERY, [clicks_at([0.5], 48_000, 2.0)], rate=48_000, codec="mp2")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    times = read_times(joined)
    assert len(times) == 100
    stretches, _ = heard(joined)
    loud = np.concatenate([start + np.flatnonzero(np.abs(wave) > 0.3) / RATE for start, wave in stretches])
    for first in (times[0], times[50]):
        near = loud[np.abs(loud - first - 0.5) < 0.5]
        assert near.mean() == pytest.approx(first + 0.5, abs=0.04)

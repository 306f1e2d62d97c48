"""The voices: what they follow, and that they are in time with the pictures of every kind of video."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from checkpoints.errors import UserError
from synthwild import release, voice
from synthwild.plan import Video, plan
from synthwild.run import Config, generate, settings
from tests.synthwild.test_run import files

VIDEOS = [video for video in plan("tiny", 0) if video.subjects[0].splits]
VARIABLE = next(video for video in VIDEOS if video.variable_rate)
AVI = next(video for video in VIDEOS if video.extension == ".avi")
SLOW = next(video for video in VIDEOS if video.rate < 10)
RATE_GAP = voice.RATE // 50


def heard(path: Path) -> tuple[float, np.ndarray] | None:
    """Start in seconds and samples of a file's sound, by its time stamps."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        frames = list(container.decode(audio=0))
    return float(frames[0].time), np.concatenate([frame.to_ndarray()[0] for frame in frames])


@pytest.mark.parametrize("video", [VARIABLE, AVI, SLOW], ids=["variable", "avi", "slow"])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_clicks_are_heard_in_their_frames(video: Video, start: float, tmp_path: Path) -> None:
    start = 0.0 if video is AVI else start  # AVI has no time stamps
    path = tmp_path / f"clip{video.extension}"
    writer = release.VideoWriter(path, video, np.random.default_rng(0))
    true = [t for t in writer.times[5:-3:9] if t >= start]
    samples = np.zeros(int(writer.times[-1] * voice.RATE), np.float32)
    for time in true:
        samples[round(time * voice.RATE) :][:160] = 0.8 * np.sin(np.arange(160) / 3)
    first = round(start * voice.RATE)
    writer.add_sound(start, samples[first:])
    picture = np.zeros((*video.size[::-1], 3), np.uint8)
    for t in range(video.frames):
        writer.write(picture, t)
    writer.close()
    with av.open(str(path)) as container:
        shown = [float(frame.time) for frame in container.decode(video=0)]
    np.testing.assert_allclose(shown, writer.times[:-1], atol=1e-6)
    begins, sound = heard(path)
    loud = np.flatnonzero(np.abs(sound) > 0.3)
    onsets = loud[np.diff(loud, prepend=-RATE_GAP) > RATE_GAP] / voice.RATE + begins
    np.testing.assert_allclose(onsets, true, atol=0.003)


def spoken(arousal: float, valence: float = 0.0) -> np.ndarray:
    when = np.arange(40) / 10
    feeling = np.tile([valence, arousal], (40, 1))
    speaker = voice.Speaker(pitch=120, tract=1, loudness=1, pace=4.5)
    return voice.speak(np.random.default_rng(3), speaker, 4.0, when, feeling, np.full(40, 0.5))


def pitch(sound: np.ndarray) -> float:
    """The commonest lag of the pulses, in Hz."""
    power = np.abs(np.fft.rfft(sound, 2 * len(sound))) ** 2
    low, high = voice.RATE // 400, voice.RATE // 60
    return voice.RATE / (low + int(np.argmax(np.fft.irfft(power)[low:high])))


def syllables(sound: np.ndarray) -> float:
    """Syllables per second: the main rhythm of the loudness."""
    envelope = np.abs(sound[: len(sound) // 160 * 160]).reshape(-1, 160).mean(1)
    spectrum = np.abs(np.fft.rfft(envelope - envelope.mean()))
    rates = np.fft.rfftfreq(len(envelope), 0.01)
    return float(rates[np.argmax(spectrum * ((rates > 2) & (rates < 12)))])


def test_arousal_makes_a_voice_louder_higher_and_faster() -> None:
    calm, excited = spoken(-0.5), spoken(0.7)
    assert excited.std() > 2 * calm.std()
    assert pitch(excited) > 1.2 * pitch(calm)
    assert syllables(excited) > 1.2 * syllables(calm)


def test_valence_makes_a_voice_brighter() -> None:
    def centre(sound: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(sound)) ** 2
        return float(power @ np.fft.rfftfreq(len(sound), 1 / voice.RATE) / power.sum())

    assert centre(spoken(0, 0.7)) > 1.05 * centre(spoken(0, -0.7))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Short labelled videos and an unlabelled one, without sound and with it."""
    short = [replace(video, frames=10, lines=10, away=None) for video in VIDEOS[:7]]
    pool = [replace(video, frames=4, lines=4) for video in plan("tiny", 0) if video.folder == "unlabelled"][:1]
    roots = {sound: tmp_path_factory.mktemp("sound" if sound else "silent") for sound in (False, True)}
    for sound, root in roots.items():
        assert len(list(release.make_videos(root, short + pool, 1, sound=sound))) == 8
    return roots


def test_only_labelled_videos_differ_and_only_by_their_sound(made: dict[bool, Path]) -> None:
    silent, loud = files(made[False]), files(made[True])
    assert silent.keys() == loud.keys()
    differ = {name for name in silent if silent[name] != loud[name]}
    assert differ == {name for name in loud if "/videos/" in name and heard(made[True] / name)}
    assert len(differ) >= 5
    assert not any(heard(made[False] / name) for name in differ)


def test_some_sound_is_late_or_short_or_missing(made: dict[bool, Path]) -> None:
    spans = {voice.heard_span(video, 1.0) for video in plan("tiny", 0) if video.subjects[0].splits}
    assert spans == {(0.0, 1.0), (0.2, 1.0), (0.0, 0.8), None}
    for video in VIDEOS[:7]:
        sound = heard(made[True] / video.folder / (video.name + video.extension))
        span = voice.heard_span(video, 10 / video.rate)
        assert (sound is None) == (span is None)
        if sound is not None and not video.variable_rate:
            assert (sound[0], sound[0] + len(sound[1]) / voice.RATE) == pytest.approx(span, abs=0.07)  # whole packets


def test_the_setting_is_part_of_the_corpus_only_if_it_is_on() -> None:
    assert settings(Config(size="tiny", sound=True)) == {**settings(Config(size="tiny")), "sound": True}
    assert "sound" not in settings(Config(size="tiny"))


def test_a_voice_is_heard_while_speech_moves_the_mouth() -> None:
    video = next(v for v in VIDEOS if len(v.subjects) == 1 and voice.heard_span(v, 1.0) == (0.0, 1.0) and v.frames > 20)
    course = release.players(video)[0].course
    course = replace(course, speech=np.where(np.arange(len(course.speech)) < video.frames / 2, 0.6, 0.0))
    quiet = replace(course, speech=np.zeros_like(course.speech))
    times = np.arange(video.frames + 1) / video.rate
    (_, talks), (_, silent) = (voice.soundtrack(video, [c], times) for c in (course, quiet))
    half = len(talks) // 2
    assert np.abs(talks - silent)[: half - 2000].std() > 10 * np.abs(talks - silent)[half + 2000 :].std()


def test_sound_needs_labelled_videos(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--sound is for labelled videos"):
        generate(tmp_path, Config(size="pool", sound=True))

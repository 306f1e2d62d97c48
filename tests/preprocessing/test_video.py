import errno
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from checkpoints.errors import UserError
from preprocessing.video import count_frames, read_frames, read_times
from tests.preprocessing.movies import number_of, packets, pattern, write_movie


def read(path):
    problems = []
    return list(read_frames(path, problems.append)), problems


def test_every_frame_once_in_order_with_its_time(tmp_path):
    path = write_movie(tmp_path / "a.mp4", [pattern(k) for k in range(60)], options={"bf": "3"})
    frames, problems = read(path)
    assert [number_of(frame.image) for frame in frames] == list(range(60))
    assert [frame.index for frame in frames] == list(range(1, 61))
    assert np.allclose([frame.time_s for frame in frames], np.arange(60) / 25)
    assert problems == []
    assert read_times(path) == [frame.time_s for frame in frames]


def test_variable_frame_rate_keeps_the_time_stamps(tmp_path):
    times = [0, 40, 47, 200, 213, 900]
    path = write_movie(tmp_path / "a.mp4", [pattern(k) for k in range(6)], times=times, time_base=Fraction(1, 1000))
    frames, _ = read(path)
    assert np.allclose([frame.time_s for frame in frames], np.array(times) / 1000, atol=1e-3)


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mov"])
def test_containers(tmp_path, suffix):
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = write_movie(tmp_path / f"a.{suffix}", [pattern(k) for k in range(10)], codec=codec)
    frames, problems = read(path)
    assert [number_of(frame.image) for frame in frames] == list(range(10))
    assert problems == []


@pytest.mark.parametrize(("matrix", "turned"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_rotation_metadata_is_applied(tmp_path, matrix, turned):
    """The matrix of a track header maps stored (x, y) to shown (a x + c y, b x + d y)."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = (250, 30, 30)
    path = write_movie(tmp_path / "a.mp4", [image] * 3)
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4 + 40  # version and flags, times, layer, volume ... then the matrix
    a, b, c, d = (value * 65536 for value in matrix)
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    frames, _ = read(path)
    shown = frames[0].image
    assert np.abs(shown.astype(int) - np.rot90(image, turned)).mean() < 6


def test_a_corrupt_frame_keeps_its_number(tmp_path):
    frames = [pattern(k) for k in range(60)]
    path = write_movie(tmp_path / "a.mp4", frames, options={"bf": "0", "g": "10"})
    data = bytearray(path.read_bytes())
    place, size = packets(path)[30]
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    found, problems = read(path)
    assert len(found) == 60
    assert found[30].image is None
    # Up to the next key frame pictures may be repeated; before and after it every one is in its place.
    assert all(number_of(frame.image) == frame.index - 1 for frame in found[:30] + found[40:])
    assert np.allclose([frame.time_s for frame in found], np.arange(60) / 25)
    assert len(problems) == 1
    assert "damaged" in problems[0]


def test_data_cut_in_half(tmp_path):
    path = write_movie(
        tmp_path / "a.mp4",
        [np.random.default_rng(k).integers(0, 255, (48, 64, 3), np.uint8) for k in range(40)],
        container={"movflags": "faststart"},
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, problems = read(path)
    assert 5 < len(frames) < 40
    assert any("ends early" in problem for problem in problems)


def test_header_without_index_is_refused(tmp_path):
    path = write_movie(tmp_path / "a.mp4", [pattern(k) for k in range(40)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be opened"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"just text\n", bytes(5000)])
def test_no_video_is_refused(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be opened"):
        read(path)


def test_audio_only_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(UserError, match="no video stream"):
        read(path)


@pytest.mark.parametrize("side", [9000, 60000])
def test_a_claim_of_billions_of_pixels_is_refused(tmp_path, side):
    path = write_movie(tmp_path / "a.avi", [pattern(k) for k in range(3)], codec="mjpeg")
    data = path.read_bytes()
    at = data.index(b"\xff\xc0\x00\x11\x08") + 5  # the first picture's own header: height, width
    data = data.replace(data[at - 5 : at + 4], data[at - 5 : at] + struct.pack(">HH", side, side))
    path.write_bytes(data.replace(struct.pack("<ii", 64, 48), struct.pack("<ii", side, side)))
    with pytest.raises(UserError, match="claims frames of 9000x9000" if side == 9000 else "no frame"):
        read(path)


def test_a_playlist_opens_nothing(tmp_path):
    """FFmpeg would follow a playlist wherever it points; only the file itself may be read."""
    secret = write_movie(tmp_path / "secret.mp4", [pattern(5)] * 3)
    path = tmp_path / "a.mp4"
    path.write_text(f"ffconcat version 1.0\nfile {secret}\n")
    with pytest.raises(UserError):
        read(path)


def test_one_pixel(tmp_path):
    path = write_movie(tmp_path / "a.mkv", [np.full((2, 2, 3), 99, np.uint8)] * 4, codec="ffv1")
    frames, problems = read(path)
    assert [frame.image.shape for frame in frames] == [(2, 2, 3)] * 4
    assert problems == []


def test_pixels_that_are_not_square(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(1), format="rgb24")))
        out.mux(stream.encode())
    frames, _ = read(path)
    assert frames[0].image.shape == (48, 96, 3)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = write_movie(tmp_path / "a.mp4", [pattern(1)])

    def forbidden(*args, **kwargs):
        raise av.error.PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(av, "open", forbidden)
    with pytest.raises(UserError, match="cannot be opened as a video: Permission denied"):
        read(path)


def test_frames_are_counted_as_they_are_read(tmp_path):
    path = write_movie(tmp_path / "a.mp4", [pattern(k) for k in range(37)])
    assert count_frames(path, print) == 37


def test_joined_files_whose_clocks_begin_anew(tmp_path):
    parts = [write_movie(tmp_path / f"{n}.ts", [pattern(k) for k in range(20)]) for n in range(2)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, problems = read(path)
    assert [number_of(frame.image) for frame in frames] == [*range(20), *range(20)]
    assert np.allclose(np.diff([frame.time_s for frame in frames]), 1 / 25, atol=1e-3)
    assert len(problems) == 1 and "time stamps run backwards" in problems[0]
    assert count_frames(path, print) == 40


def test_b_frames_in_a_container_without_presentation_times(tmp_path):
    path = write_movie(tmp_path / "a.avi", [pattern(k) for k in range(40)], codec="libx264", options={"bf": "3"})
    frames, _ = read(path)
    assert [number_of(frame.image) for frame in frames] == list(range(40))

import errno
import struct
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.errors import UserError
from preprocessing.sources import find_items
from preprocessing.video import _rising, count_frames, holds_video, packets_of, read_times
from tests.preprocessing.movies import flag, number_of, packets, pattern, read, write_movie, write_tiles


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


@pytest.mark.parametrize(
    ("times", "right"),
    [
        ([0, 33, 66, 66, 132, 500], [0, 33, 66, 99, 132, 500]),  # repeated
        ([0, 33, 66, 65, 132, 500], [0, 33, 66, 99, 132, 500]),  # reversed
        ([0, 40, 40, 40, 160, 200], [0, 40, 80, 120, 160, 200]),
    ],
)
def test_a_faulty_time_stamp_is_repaired_and_the_clock_kept(tmp_path, times, right):
    path = tmp_path / "a.mkv"
    rising = [10 * k for k in range(6)]
    write_movie(path, [pattern(k) for k in range(6)], times=rising, time_base=Fraction(1, 1000), codec="mjpeg")
    data = bytearray(path.read_bytes())
    cluster = data.index(b"\x1f\x43\xb6\x75")
    for before, after in zip(rising, times, strict=True):  # track 1, time, flags: key frame
        at = data.index(b"\x81" + struct.pack(">h", before) + b"\x80", cluster)
        data[at + 1 : at + 3] = struct.pack(">h", after)
        cluster = at + 4
    path.write_bytes(data)
    frames, problems = read(path)
    assert [number_of(frame.image) for frame in frames] == list(range(6))
    assert np.allclose([frame.time_s for frame in frames], np.array(right) / 1000, atol=1e-9)
    assert len(problems) == 1 and "repeated or reversed time stamps" in problems[0]
    assert read_times(path)[-1] == right[-1] / 1000


@given(st.lists(st.one_of(st.none(), st.integers(-5000, 50000).map(lambda ms: ms / 1000)), min_size=1, max_size=40))
def test_repaired_times_rise_and_sound_ones_stay(stamps):
    out = list(_rising(((stamp, number) for number, stamp in enumerate(stamps)), 0.04))
    assert [number for _, number, _ in out] == list(range(len(stamps)))
    times = [time_s for time_s, _, _ in out]
    assert all(a < b for a, b in pairwise(times))
    assert all(time_s == stamps[number] for time_s, number, mended in out if not mended)


def test_one_stamp_far_off_moves_no_other():
    packets_ = [SimpleNamespace(pts=k * 40, dts=k * 40) for k in range(10)]
    packets_[4].pts = packets_[4].dts = 10_000_000
    packets_[7].pts = packets_[7].dts = -3000
    stream = SimpleNamespace(time_base=Fraction(1, 1000))
    problems = []
    out = list(packets_of(SimpleNamespace(demux=lambda stream: iter(packets_)), stream, problems.append))
    assert [packet.pts for packet in out] == [0, 40, 80, 120, None, 200, 240, None, 320, 360]
    assert problems == []


def two_streams(path, first, second):
    with av.open(str(path), "w") as out:
        streams = []
        for images in (first, second):
            stream = out.add_stream("mjpeg", rate=25)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = "yuvj420p"
            streams.append((stream, images))
        for stream, images in streams:
            for image in images:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode())
    return path


@pytest.mark.parametrize("first", [[pattern(9, 24, 32)] * 12, [pattern(9, 96, 128)]])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_film_among_several_streams(tmp_path, first, swapped):
    """Neither a small preview nor a large poster of one frame is the film."""
    film = [pattern(k) for k in range(12)]
    path = two_streams(tmp_path / "a.mkv", *((film, first) if swapped else (first, film)))
    frames, problems = read(path)
    assert [number_of(frame.image) for frame in frames] == list(range(12))
    assert "has 2 video streams" in problems[0]


@pytest.mark.parametrize(("name", "params"), [("PQ", (16, 9)), ("HLG", (18, 9))])
def test_hdr_is_named_and_looks_like_its_standard_twin(tmp_path, name, params):
    grey = np.repeat(np.linspace(0.05, 0.7, 8), 8)[None, :, None].repeat(48, 0).repeat(3, 2)  # of paper white
    if name == "PQ":
        y = (grey * 203 / 10_000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    else:
        light = grey * 0.265  # where paper white stands at 75 % of the signal
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        signal = np.where(light <= 1 / 12, np.sqrt(3 * light), a * np.log(np.maximum(12 * light - b, 1e-9)) + c)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gbrp10le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = params
        frame = av.VideoFrame.from_ndarray((signal * 65535).astype(np.uint16), format="rgb48le")
        frame.pts = 0
        out.mux(stream.encode(frame.reformat(format="gbrp10le")))
        out.mux(stream.encode())
    frames, problems = read(path)
    assert np.abs(frames[0].image - 255 * grey ** (1 / 2.2)).max() < 3
    assert len(problems) == 1 and f"is HDR ({name})" in problems[0]


@pytest.mark.parametrize("shape", [(96, 128), (96, 64), (24, 32)])
def test_frames_of_another_size_are_shown_in_the_frame_of_the_first(tmp_path, shape):
    parts = [
        write_movie(tmp_path / f"{k}.ts", [white_disc(*size)] * 5, options={"bf": "0"})
        for k, size in enumerate([(48, 64), shape])
    ]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, problems = read(path)
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)} and len(frames) == 10
    last = frames[-1].image[..., 0] > 128
    ys, xs = np.nonzero(last)
    assert abs(ys.mean() - 23.5) < 1 and abs(xs.mean() - 31.5) < 1  # in the middle, and still round
    assert abs(np.ptp(ys) - np.ptp(xs)) <= 2
    assert any(f"changes to {shape[1]}x{shape[0]} at frame 6" in problem for problem in problems)


def white_disc(height, width):
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) < min(height, width) / 4
    return np.where(disc[..., None], 250, 5).repeat(3, 2).astype(np.uint8)


def test_a_stream_without_a_decoder_is_refused_by_name(tmp_path):
    path = write_movie(tmp_path / "a.mp4", [pattern(1)] * 3)
    data = path.read_bytes()
    assert data.count(b"avc1") >= 1
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    with pytest.raises(UserError, match="cannot be decoded here"):
        read(path)
    assert read_times(path) == []


@pytest.mark.parametrize("thumbnail", [False, True])
def test_a_photograph_in_tiles_is_not_read_as_one_of_them(tmp_path, thumbnail):
    path = write_tiles(tmp_path / "photos" / "a.heic", [flag()] * 4, thumbnail=thumbnail)
    with pytest.raises(UserError, match=r"is a photograph in tiles \(HEIC\).*save it as JPEG or PNG"):
        read(path)
    items, problems = find_items([tmp_path / "photos"], crops=False)  # a folder names it, with the reason
    assert [(item.video, item.kind) for item in items] == [("a", "video")] and problems == []


def test_only_what_can_be_decoded_holds_a_video(tmp_path):
    movie = write_movie(tmp_path / "a.mp4", [pattern(1)] * 3).rename(tmp_path / "a")
    assert holds_video(movie)
    (tmp_path / "notes.txt").write_text("a text\n" * 50)
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(5000))
    np.save(tmp_path / "x.npy", np.zeros((9, 9)))
    assert not any(holds_video(tmp_path / name) for name in ("notes.txt", "noise", "x.npy"))

import os
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from checkpoints.errors import UserError
from preprocessing.align import encode_jpeg
from preprocessing.items import Item
from tests import processes
from tests.wildaffect.inference.browser import Browser
from tests.wildaffect.inference.test_clip import TIMES, BrightSquare, write_clip
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.web_page import (
    EXAMPLE,
    Limits,
    check_length,
    downloads,
    in_frame,
    is_ours,
    own_names,
    shown_while_kept,
    take,
)


@pytest.mark.parametrize("name", ["..%2f..%2fetc; rm -rf.JPG", "clip.mp4", ".", "no ending"])
def test_what_a_visitor_calls_a_file_is_no_path_and_no_kind(tmp_path, name):
    upload = tmp_path / f"upload {name}"
    upload.write_bytes(encode_jpeg(np.zeros((9, 9, 3), np.uint8)))
    job = tmp_path / "job"
    job.mkdir()
    item = take(upload, job)
    assert (item.path, item.video, item.name, item.kind) == (job / "clip", "clip", "clip", "picture")


def test_a_long_clip_is_refused_before_work_begins(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", TIMES)
    job = tmp_path / "job"
    job.mkdir()
    item = take(clip, job)
    check_length(item, 0.1)
    with pytest.raises(UserError, match=r"0\.1 minutes long; this page takes at most 0\.05"):
        check_length(item, 0.05)


@pytest.mark.parametrize("suffix", ["h264", "webp"])
def test_a_clip_without_a_clock_has_a_length_too(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    if suffix == "webp":
        first, *more = [Image.new("RGB", (9, 9), (n, 0, 0)) for n in range(50)]
        first.save(path, save_all=True, append_images=more, duration=100)
    else:
        with av.open(str(path), "w", format="h264") as output:
            stream = output.add_stream("libx264", rate=10)
            stream.width = stream.height = 16
            for _ in range(50):
                output.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
            output.mux(stream.encode())
    job = tmp_path / "job"
    job.mkdir()
    with pytest.raises(UserError, match="minutes long"):
        check_length(take(path, job), 0.02)


@pytest.mark.parametrize(
    ("host", "ours", "others"),
    [
        (
            "127.0.0.1",
            ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "::1"],
            ["10.0.0.5", "a.com:7860"],
        ),
        ("10.0.0.5", ["10.0.0.5:7860", "localhost", socket.gethostname()], ["10.0.0.6", "localhost.a.com", "", ":"]),
        ("0.0.0.0", ["10.0.0.5:80", "[fe80::1]:7860", "fe80::1", socket.gethostname()], ["a.com", "10.0.0.5.a.com"]),
    ],
)
def test_only_its_own_address_is_answered(host, ours, others):
    names = own_names(host)
    assert all(is_ours(name, names) for name in ours)
    assert not any(is_ours(name, names) for name in others)


@pytest.mark.parametrize(
    "stem, name",
    [
        ("talk 3", "talk_3_a.csv"),
        ("../../etc/x", "etc_x_a.csv"),
        ("Grüße", "Grüße_a.csv"),
        ("..", "clip_a.csv"),
    ],
)
def test_downloads_are_named_after_the_clip(stem, name, tmp_path):
    result = tmp_path / "result"
    result.mkdir()
    (result / "a.csv").write_text("x")
    named = downloads(result, tmp_path / "downloads", stem)
    assert named == {"a.csv": str(tmp_path / "downloads" / name)} and Path(named["a.csv"]).read_text() == "x"


def test_progress_begins_at_once_and_never_goes_back(heads, monkeypatch, tmp_path):
    monkeypatch.setattr(Predictor, "detector", BrightSquare())
    told: list[tuple[float, str]] = []
    clip = write_clip(tmp_path / "my clip.mp4", [40 * n for n in range(150)])
    results = shown_while_kept(Limits(), Predictor(heads), tmp_path, clip, lambda done, desc: told.append((done, desc)))
    _, video, curves, files = next(results)
    assert len(files) == 6 and all(Path(file).is_file() for file in files)  # gradio copies them now
    assert next(results, None) is None
    assert not any((tmp_path / "jobs").iterdir())
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1)
    searched = [words for _, words in told if words.startswith("finding faces: ")]
    assert searched == [f"finding faces: {n} of 150" for n in (0, 64, 128, 150)]
    assert Path(video).name == "my_clip_annotated.mp4" and "<iframe" in curves
    assert "my_clip_predictions.json" in {Path(file).name for file in files}


def test_the_example_is_a_short_clip():
    assert EXAMPLE.stat().st_size < 100_000
    check_length(Item("example", EXAMPLE, "example", "video", 0), 0.1)


def test_curves_cannot_break_out_of_their_frame():
    frame = in_frame('"></iframe><script>alert(1)</script>')
    assert frame.count("<iframe") == 1 and "<script" not in frame and 'sandbox="allow-scripts"' in frame


@pytest.fixture(scope="module")
def address(heads, tmp_path_factory):
    """The page, served by the command."""
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("app")
    options = ["--port", port, "--max-minutes", "1", "--no-browser", "--heads", *heads]
    server = processes.start("wildaffect/cli.py", "app", *options, env=os.environ | {"TMPDIR": str(folder)})
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            assert server.poll() is None, "the page ended"
            try:
                urllib.request.urlopen(url).close()
                break
            except OSError:
                time.sleep(0.2)
        yield url
        server.send_signal(signal.SIGTERM)
        server.wait(20)
        left = list(folder.glob("wildaffect-app-*"))
        assert not left, "temporary files are removed"
    finally:
        server.kill()


@pytest.mark.parametrize("headers", [{"Host": "rebound.example"}, {"Host": ""}])
def test_a_domain_that_leads_here_gets_nothing(address, headers):
    with pytest.raises(urllib.error.HTTPError, match="421"):
        urllib.request.urlopen(urllib.request.Request(address, headers=headers))


def test_an_upload_without_a_name_is_refused(address):
    body = b'--XX\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc\r\n--XX--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=XX"}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(f"{address}gradio_api/upload", body, headers))


def upload(browser: Browser, address: str, file: Path) -> None:
    browser.open(address)
    browser.wait("!!document.querySelector('#upload input[type=file]')")
    browser.choose_file("#upload input[type=file]", file)
    browser.wait(f"document.querySelector('#upload').innerText.includes('{file.stem}')")
    browser.run("document.querySelector('#predict').click()")


def test_upload_watch_seek_download(address, browser, tmp_path):
    pytest.importorskip("facenet_pytorch")
    upload(browser, address, write_clip(tmp_path / "drawn.mp4", TIMES, sound="aac"))
    browser.wait("(document.querySelector('#annotated video') || {}).readyState >= 1", 120)
    assert abs(browser.run("document.querySelector('#annotated video').duration") - TIMES[-1] / 1000) < 0.3
    assert "60 frames" in browser.run("document.querySelector('#said').innerText")
    browser.wait("!!document.querySelector('#curves iframe')")
    time.sleep(1)
    browser.run("document.querySelector('#curves iframe').scrollIntoView({block: 'center'})")
    time.sleep(1)
    x, y, width, _ = browser.run(
        "(() => { const r = document.querySelector('#curves iframe').getBoundingClientRect();"
        " return [r.x, r.y, r.width, r.height]; })()"
    )
    browser.click(x + width * 0.75, y + 180)
    browser.wait("document.querySelector('#annotated video').currentTime > 1", 10)
    browser.resize(390, 844)  # the legend wraps: the frame of the curves grows with it
    browser.wait("parseFloat(document.querySelector('#curves iframe').style.height) > 720", 10)
    assert browser.run("document.documentElement.scrollWidth") == 390
    names = browser.run("[...document.querySelectorAll('#downloads a')].map((a) => a.href.split('/').pop())")
    assert {"drawn_predictions.csv", "drawn_predictions.json", "drawn_annotated.mp4"} <= set(names)
    link = browser.run("[...document.querySelectorAll('#downloads a')].find((a) => a.href.endsWith('.csv')).href")
    with urllib.request.urlopen(link) as answer:
        lines = answer.read().decode().splitlines()
    assert len(lines) == 61 and lines[0].startswith("subject,frame,time_s,face")
    outside = [url for url in browser.requests if url.startswith("http") and not url.startswith(address)]
    assert not outside


def test_one_click_shows_an_example_in_the_dark(address, browser):
    pytest.importorskip("facenet_pytorch")
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(address)
    browser.wait("!!document.querySelector('#example')")
    browser.run("document.querySelector('#example').click()")
    browser.wait("(document.querySelector('#said') || {}).innerText.includes('55 frames')", 300)
    browser.wait("!!document.querySelector('#curves iframe')")
    assert browser.run("getComputedStyle(document.querySelector('#curves iframe')).colorScheme") == "dark"


def test_a_text_file_named_mp4_gets_a_clear_message(address, browser, tmp_path):
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    upload(browser, address, tmp_path / "text.mp4")
    browser.wait("document.body.innerText.includes('cannot be opened as a video')", 60)

"""The local web page (`wildaffect app`): upload a clip, watch the annotated video beside the curves."""

import html
import ipaddress
import math
import re
import shutil
import socket
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import gradio
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from checkpoints.errors import UserError
from preprocessing.items import Item
from preprocessing.pictures import picture_kind
from preprocessing.video import read_times
from wildaffect.inference.clip import predict_clip, read_clip_header
from wildaffect.inference.clip_facts import MISUSE, MODEL_COLUMNS, describe_kinds, describe_models
from wildaffect.inference.clip_page import time_lines
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.progress import share_of_clip
from wildaffect.inference.table import read_table
from wildaffect.report.page import colours

# The browser must not fetch anything from outside, whatever the libraries of the page ask for.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "frame-src 'self'; worker-src 'self' blob:"
)

# A click on a curve seeks the video, the playing video moves a line over the curves, and the frame fits their height.
LINK = """<script>
window.addEventListener("message", ({ data }) => {
  const video = document.querySelector("#annotated video"), frame = document.querySelector("#curves iframe");
  if (video && data && data.wildaffect === "seek") video.currentTime = Math.max(0, data.seconds);
  if (frame && data && data.wildaffect === "height") frame.style.height = Math.min(data.height, 2000) + "px";
});
setInterval(() => {
  const video = document.querySelector("#annotated video"), frame = document.querySelector("#curves iframe");
  if (video && frame) frame.contentWindow.postMessage({ wildaffect: "playing", seconds: video.currentTime }, "*");
}, 100);
</script>"""
LOCAL = {"localhost", "127.0.0.1", "::1"}
# The frame takes its colours, light or dark, from the page.
STYLE = "#curves iframe { width: 100%; border: 0; border-radius: 8px; } .dark #curves iframe { color-scheme: dark; }"
EXAMPLE = Path(__file__).parent / "example.mp4"
"""Two seconds of two people drawn by SynthWild (the video `2` of its size `tiny`)."""


@dataclass(frozen=True)
class Limits:
    """Limits of the page.

    Attributes:
        megabytes: Largest upload.
        minutes: Longest clip.
        waiting: Number of clips that may wait in the queue.
    """

    megabytes: int = 500
    minutes: float = 10.0
    waiting: int = 8


def serve(page: Any, limits: Limits, host: str, port: int, *, browser: bool = False) -> None:
    """Serve a page from :func:`build` until Ctrl-C, and open it in a `browser`.

    Raises:
        UserError: The port is taken.
    """
    page.queue(max_size=limits.waiting, default_concurrency_limit=1, api_open=False)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=browser,
            max_file_size=f"{limits.megabytes}mb",
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            head=LINK,
            css=STYLE,
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            app_kwargs={
                "middleware": [Middleware(Policy, host=host)],
                "exception_handlers": {TypeError: refuse},
            },
        )
    except OSError as error:
        raise UserError(f"the page cannot be served on {host}:{port} ({error}): try another --port") from None


def build(limits: Limits, predictor: Predictor, folder: Path) -> Any:
    """Build the page.

    Args:
        limits: Limits of the page.
        predictor: The loaded heads.
        folder: Directory for uploads and results while they are needed.
    """

    def work(upload: str | None, progress: Any = gradio.Progress()) -> Iterator[tuple[Any, ...]]:  # noqa: B008
        if upload is None:
            yield "**Choose a video or a picture first.**", None, "", None
        else:
            yield from shown_while_kept(limits, predictor, folder, Path(upload), progress)

    def example(progress: Any = gradio.Progress()) -> Iterator[tuple[Any, ...]]:  # noqa: B008
        yield from work(str(EXAMPLE), progress)

    with gradio.Blocks(title="wildaffect", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gradio.Markdown("# wildaffect\nValence and arousal, expression and action units for every frame of a clip.")
        if predictor.models.synthetic:
            gradio.Markdown(f"**{predictor.models.caution}**")
        gradio.Markdown("\n".join(f"- {line}" for line in describe_kinds(predictor.models)))
        with gradio.Row():
            upload = gradio.File(
                label=f"Video or picture, at most {limits.megabytes} MB and {limits.minutes:g} minutes",
                type="filepath",
                elem_id="upload",
            )
            with gradio.Column():
                button = gradio.Button("Predict", variant="primary", elem_id="predict")
                drawn = gradio.Button("Try an example (drawn faces)", elem_id="example")
                said = gradio.Markdown(elem_id="said", min_height=90)
        with gradio.Row():
            with gradio.Column(min_width=320):
                video = gradio.Video(label="Annotated video", elem_id="annotated", interactive=False)
            with gradio.Column(min_width=320):
                curves = gradio.HTML(elem_id="curves")
        files = gradio.File(label="Downloads", file_count="multiple", interactive=False, elem_id="downloads")
        with gradio.Accordion("About the heads, and what they must not be used for", open=False):
            gradio.Markdown(MISUSE)
            gradio.Dataframe(describe_models(predictor.models), headers=list(MODEL_COLUMNS), interactive=False)
            about = [*predictor.models.data, *predictor.models.scores]
            gradio.HTML("".join(f"<p>{html.escape(line)}</p>" for line in about))
        # One bar, where the summary will be, instead of one on each part of the page.
        shown: Any = {"outputs": [said, video, curves, files], "show_progress_on": said, "api_visibility": "private"}
        button.click(work, upload, **shown)
        drawn.click(example, None, **shown)
    return page


def shown_while_kept(
    limits: Limits, predictor: Predictor, folder: Path, upload: Path, progress: Any
) -> Iterator[tuple[Any, ...]]:
    """Yield what the page shows of one upload, or why there is nothing; when asked to go on, delete its files.

    Gradio copies the files of what an event yields to its own cache before it goes on; of what an event returns, it
    would copy them when they are gone.
    """
    (folder / "jobs").mkdir(exist_ok=True)
    job = Path(tempfile.mkdtemp(dir=folder / "jobs"))
    try:
        yield process(limits, predictor, job, upload, progress)
    except UserError as error:
        yield f"**{error}**", None, "", None
    finally:
        shutil.rmtree(job, ignore_errors=True)


def process(
    limits: Limits, predictor: Predictor, job: Path, upload: Path, progress: Any
) -> tuple[str, str | None, str, list[str]]:
    """Predict one upload, with all files in the folder `job`.

    Returns:
        A summary with warnings, the annotated video, the curves, and the files to download.

    Raises:
        UserError: The clip is too long or cannot be read.
    """
    clip = take(upload, job)
    check_length(clip, limits.minutes)

    def show(step: str, done: int, total: int) -> None:
        progress(share_of_clip(step, done, total), desc=f"{step}: {done:,} of {total:,}" if total else step)

    show("finding faces", 0, 0)
    try:
        outcome = predict_clip(predictor, clip, job / "result", progress=show)
    except UserError as error:
        raise UserError(f"This file {str(error).removeprefix(str(clip.path)).strip()}.") from None
    except (OSError, av.FFmpegError) as error:
        raise UserError(f"This file could not be processed: {error.strerror}.") from None
    result = job / "result"
    warnings = read_clip_header(result)["warnings"]
    markup = time_lines(read_table(result / "predictions.parquet"))
    named = downloads(result, job / "downloads", upload.stem)
    text = "\n\n".join([str(outcome), *(f"⚠ {warning}" for warning in warnings)])
    return text, named.get("annotated.mp4"), in_frame(str(markup)), list(named.values())


def downloads(result: Path, folder: Path, stem: str) -> dict[str, str]:
    """Move the files of a result to a folder, named after the visitor's clip; returns their paths by old name."""
    folder.mkdir()
    clean = re.sub(r"[^\w-]+", "_", stem)[:60].strip("_") or "clip"
    named = {}
    for file in sorted(result.iterdir()):
        named[file.name] = str(file.rename(folder / f"{clean}_{file.name}"))
    return named


def take(upload: Path, job: Path) -> Item:
    """Copy an upload to a file with a name of ours. The visitor's name, if there is one, is not used."""
    path = job / "clip"
    shutil.copyfile(upload, path)
    return Item("clip", path, "clip", picture_kind(path) or "video", path.stat().st_size)


def check_length(clip: Item, minutes: float) -> None:
    """Refuse a clip that is too long. Its length is taken from its packets, not from its header.

    Frames without any clock count as 30 per second.

    Raises:
        UserError: The clip is longer than `minutes`.
    """
    times = read_times(clip.path) if clip.kind == "video" else []
    length = (times[-1] - times[0]) / 60 if times else 0.0
    length = length if math.isfinite(length) else len(times) / 30 / 60
    if length > minutes:
        raise UserError(f"This clip is {length:.1f} minutes long; this page takes at most {minutes:g}.")


def in_frame(markup: str) -> str:
    """Put the curves into a sandboxed frame. Its script can only exchange messages with the page."""
    style = f"{colours()} body{{margin:0;padding:8px;background:var(--paper);font:16px/1.5 system-ui,sans-serif}}"
    text = f"<!DOCTYPE html><html lang=en><meta charset=utf-8><style>{style}</style><body>{markup}</body></html>"
    return f'<iframe title="curves" sandbox="allow-scripts" height="720" srcdoc="{html.escape(text)}"></iframe>'


def own_names(host: str) -> set[str]:
    """What a page that listens on an address may be called."""
    if host in LOCAL:
        return LOCAL
    return {host.lower(), *LOCAL, socket.gethostname().lower(), socket.getfqdn().lower()}


def is_ours(header: str, names: Collection[str]) -> bool:
    """Whether a `Host` header is one of a page's own names, with or without a port.

    A page that listens on all addresses is also called by their numbers, which nobody can point somewhere else.
    """
    name = header.strip().lower()
    if name.rpartition(":")[2].isdecimal() and (name.count(":") == 1 or "]" in name):
        name = name.rpartition(":")[0]
    name = name.removeprefix("[").removesuffix("]")
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return "0.0.0.0" in names or "::" in names


def refuse(_: Request, error: Exception) -> PlainTextResponse:
    """Answer a request that gradio cannot make sense of, such as an upload without a name."""
    return PlainTextResponse(f"This request cannot be read: {error}", 400)


class Policy:
    """Middleware that answers only requests to the page's own address, and adds the content security policy.

    Otherwise any site that a visitor has open could read the page through a domain that leads here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.names = app, own_names(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] in ("http", "websocket"):
            names = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(names) != 1 or not is_ours(names[0], self.names):
                await PlainTextResponse("This page is not served under that name.", 421)(scope, receive, send)
                return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"content-security-policy", POLICY.encode())]
                message = {**message, "headers": [*headers, (b"referrer-policy", b"no-referrer")]}
            await send(message)

        await self.app(scope, receive, send_with_policy)

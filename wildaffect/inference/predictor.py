"""From clips to predictions, in Python: `Predictor().predict("clip.mp4")`."""

import shutil
import tempfile
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pyarrow as pa
import torch
from tqdm.auto import tqdm

from checkpoints.errors import UserError
from checkpoints.framing import NAMED
from checkpoints.reading import shown
from features.cache import fill_nearest
from preprocessing.detect import Detector
from preprocessing.faces import FacesStore
from preprocessing.faces import Sequence as FaceSequence
from preprocessing.items import Item
from preprocessing.live import LiveFaces
from preprocessing.shard import Settings
from preprocessing.views import face_views
from temporal.data import frame_rate
from wildaffect.inference.clips import find_faces_of
from wildaffect.inference.hearing import Heard, hear_clip
from wildaffect.inference.hub import fetch
from wildaffect.inference.inputs import Clip, Frames, Inputs, StoredVideo, read_inputs
from wildaffect.inference.live import Live, live_frames
from wildaffect.inference.models import load_models
from wildaffect.inference.onnx_export import use_onnx
from wildaffect.inference.prediction import Prediction, Predictions
from wildaffect.inference.progress import Bars, Progress
from wildaffect.inference.scratch import parts, scratch_array
from wildaffect.inference.table import make_table
from wildaffect.training.images import resize
from wildaffect.training.launch import choose_precision

RUNTIMES = ("torch", "onnx")

no_detector: UserError | None = None
try:
    from preprocessing.mtcnn import MTCNN, check_device
except UserError as error:  # not installed: clips cannot be read, but finished faces stores can
    no_detector = error


class Predictor:
    """Predicts valence, arousal, expression and action units of every frame of a clip.

    Args:
        heads: Runs of stage 3, head directories or bundles; heads of the same task are averaged. If none are given,
            the installed ones.
        device: `auto`, `cpu`, `cuda`, ...
        batch_size: Faces per forward pass of the encoder.
        runtime: `onnx` runs the graphs of a bundle made by `wildaffect export --onnx`.
        prior: How common the expressions are assumed to be: `stated` (the head's own), `trained` (as in training),
            `uniform`, or a JSON file of shares by expression.
        adapt: `person` treats each person's median over the clip as neutral; `clip` estimates the prior from the clip.
            Who is seen for less than a second, or in fewer than ten frames, stays as without it.

    Raises:
        UserError: A head or its encoder is missing, damaged or does not fit; there is no such device, runtime, prior
            or adaptation; the batch size is not positive.

    Examples:
        Heads of any task will do; here `heads` are those of a finished `make demo` and `clip` is a video.

        >>> from wildaffect import Predictor
        >>> result = Predictor(heads).predict(clip, progress=False)
        >>> len(result) == frames_of(clip)
        True
        >>> frame = result.to_pandas()
        >>> list(frame.columns[:5])
        ['subject', 'frame', 'time_s', 'face', 'interpolated']
        >>> bool(frame.valence[frame.face].between(-1, 1).all())
        True
    """

    def __init__(
        self,
        heads: Sequence[Path | str] | Path | str = (),
        *,
        device: str = "auto",
        batch_size: int = 64,
        runtime: Literal["torch", "onnx"] = "torch",
        prior: str | Path = "stated",
        adapt: Literal["none", "person", "clip"] = "none",
    ):
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: expected 1 or more")
        if runtime not in RUNTIMES:
            raise UserError(f"runtime {shown(runtime)}: expected one of {', '.join(RUNTIMES)}")
        if device == "auto" and runtime == "torch":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        device = "cpu" if device == "auto" else device
        if no_detector is None:
            check_device(device)
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.models = load_models([heads] if isinstance(heads, str | Path) else heads, self.device)
        self.models.under(prior, adapt)
        self.precision = choose_precision("auto", self.device)[0]
        if runtime == "onnx":
            use_onnx(self.models)
            self.precision = "fp32"

    @classmethod
    def from_pretrained(cls, name: Path | str, *, revision: str | None = None, **options: Any) -> "Predictor":
        """Load heads from a folder, or download a bundle from the Hugging Face Hub (extra `hub`).

        Args:
            name: A folder, or `OWNER/NAME` on the Hub.
            revision: Branch, tag or commit on the Hub.
            options: Further arguments of the class.

        Raises:
            UserError: There is neither, or see the class.
        """
        return cls(fetch(name, revision), **options)

    def predict(
        self,
        source: Any,
        *,
        fps: float | None = None,
        times: Iterable[float] | None = None,
        crops: bool = False,
        progress: bool = True,
    ) -> Prediction | Predictions:
        """Predict one clip, or several.

        Args:
            source: A video, a picture (file, PIL, or RGB uint8 `[H, W, 3]`), a folder of these or of numbered frames,
                frames (an array `[T, H, W, 3]`, a list or a generator of pictures, with `fps` or `times`), a faces
                store, or a list of any of these.
            fps: Frames per second, for frames.
            times: Time of each frame in seconds instead.
            crops: The pictures already are faces, framed as in the training of the heads: nothing is searched.
            progress: Show progress bars.

        Returns:
            One prediction; of a list, a folder of clips or a faces store a list of them. Caveats, and
            items of a list or a folder that could not be read, are reported through `warnings`.

        Raises:
            UserError: Nothing could be read.
        """
        inputs = read_inputs(source, fps=fps, times=times, crops=crops)
        done = Predictions(self._each(inputs, crops, progress, 1))
        return done[0] if inputs.single else done

    def predict_many(
        self, sources: Any, *, workers: int = 1, crops: bool = False, progress: bool = True
    ) -> Iterator[Prediction]:
        """Predict many clips, and yield each prediction, in order, as soon as it is ready.

        At most `workers` clips are ahead of the caller. The faces of a clip are kept in a temporary folder until its
        prediction is deleted.

        Args:
            sources: See :meth:`predict`.
            workers: Threads that predict one clip each.
            crops: See :meth:`predict`.
            progress: Show a progress bar.

        Raises:
            UserError: Nothing could be read.
        """
        if workers < 1:
            raise UserError(f"workers={workers}: expected 1 or more")
        yield from self._each(read_inputs(sources, crops=crops), crops, progress, workers)

    def _each(self, inputs: Inputs, crops: bool, progress: bool, workers: int) -> Iterator[Prediction]:
        """Predict clips; what a reader should know is warned of, two callers up."""
        for text in inputs.left_out:
            warnings.warn(text, stacklevel=3)
        count, failed = len(inputs.clips), []

        def attempt(job: tuple[int, Clip]) -> Prediction | str:
            number, clip = job
            name = clip.video if inputs.single else f"[{number}/{count}] {clip.video}"
            try:
                with Bars(name, shown=progress and workers == 1) as report:
                    return self._one(clip, crops, report)
            except (UserError, OSError, av.FFmpegError) as error:
                return str(error) if isinstance(error, UserError) else f"{clip.video}: {error}"

        jobs = list(enumerate(inputs.clips, 1))
        with tqdm(total=count, unit=" clips", disable=not progress or workers == 1) as bar:
            for outcome in map(attempt, jobs) if workers == 1 else _in_order(attempt, jobs, workers):
                bar.update()
                if isinstance(outcome, str):
                    failed.append(outcome)
                    if not inputs.single:
                        warnings.warn(f"left out: {outcome}", stacklevel=3)
                    continue
                for text in outcome.warnings:
                    warnings.warn(text if inputs.single else f"{outcome.clip}: {text}", stacklevel=3)
                yield outcome
        if len(failed) == count:
            raise UserError("; ".join(failed))

    def _one(self, clip: Clip, crops: bool, progress: Progress) -> Prediction:
        """Predict one clip. Its faces are deleted with the prediction."""
        if isinstance(clip, StoredVideo):
            heard = self.hear(clip.store, clip.video)
            table = self.predict_faces(clip.store, clip.video, progress, heard)
            return Prediction(clip.video, table, clip.store, self.models, notes=heard.notes)
        folder = tempfile.mkdtemp(prefix="wildaffect-")
        try:
            store, problems = self.find_faces(clip, Path(folder) / "faces", progress, crops=crops)
            source = clip.path if clip.kind == "video" and clip.frames is None else None
            heard = self.hear(store, clip.video, source)
            table = self.predict_faces(store, clip.video, progress, heard)
            result = Prediction(
                clip.video, table, store, self.models, problems=problems, notes=heard.notes, source=source
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(result, shutil.rmtree, folder, ignore_errors=True)
        return result

    def stream(
        self, frames: Any, *, fps: float | None = None, times: Iterable[float] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Predict a running video: yield the rows of each frame before the next one is asked for.

        The columns are those of the table, and there is a row for every person in a frame. As the video has no end,
        `subject` is empty for the first person seen (who has a row in every frame), and nothing is interpolated.
        Memory does not grow.

        Args:
            frames: Pictures (RGB uint8 `[H, W, 3]`, PIL, or None for a missing one) as they come, or a video file.
            fps: Frames per second; if neither this nor `times` is given, the times of arrival are taken.
            times: Time of each frame in seconds.

        Raises:
            UserError: A head predicts from later frames too; `adapt` needs the whole clip; a frame is not a picture.
        """
        live = Live(self, LiveFaces(self.detector, self.face_size, self.models.framing.for_alignment))
        source = live_frames(frames, fps, times)
        return (row for frame in source for row in live.rows(frame))

    @property
    def face_size(self) -> Literal[112, 224]:
        """Side of the aligned faces in pixels: as large as the largest encoder reads."""
        return 112 if self.models.image_size <= 112 else 224

    @cached_property
    def detector(self) -> Detector:
        """MTCNN, loaded for the first clip.

        Raises:
            UserError: It is not installed.
        """
        if no_detector is not None:
            raise no_detector
        return MTCNN(str(self.device))

    def find_faces(
        self, clip: Item, path: Path, progress: Progress | None = None, *, crops: bool = False
    ) -> tuple[FacesStore, list[str]]:
        """Make a clip's faces store, framed as in training, with pictures as large as the largest encoder reads.

        Ready `crops` are taken to be framed so.

        Raises:
            UserError: The clip cannot be read.
        """
        settings = Settings(self.face_size, crops=crops, framing=self.models.framing.for_alignment)
        try:
            return find_faces_of(clip, path, None if crops else self.detector, settings, progress=progress)
        finally:
            if isinstance(clip.frames, Frames) and clip.frames.error:
                raise clip.frames.error

    def hear(self, store: FacesStore, video: str, source: Path | None = None) -> Heard:
        """The sound of one video of a faces store as the heads hear it, if any does.

        Args:
            store: The faces.
            video: Its id.
            source: The video itself; without it there is no sound.
        """
        sequences = [sequence for sequence in store.sequences() if sequence.video == video]
        return hear_clip(self.models.sounds, store, sequences, source)

    def predict_faces(
        self, store: FacesStore, video: str, progress: Progress | None = None, heard: Heard | None = None
    ) -> pa.Table:
        """Predict one video of a faces store, with what was `heard` in it; without it, as if there were no sound.

        Raises:
            UserError: The faces are framed otherwise than in the training of the heads.
        """
        known = self.models.framing
        if known.is_known and store.framing.identity != known.identity:
            raise UserError(
                f"{store.path} has faces in the framing {store.framing.name!r}, and the heads were trained on "
                f"{known.name!r}: run preprocessing with --framing {known.name if known.name in NAMED else 'STORE'}, "
                "or predict the videos themselves"
            )
        sequences = [sequence for sequence in store.sequences() if sequence.video == video]
        total = int(sum(store.valid[s.start : s.start + s.length].sum() for s in sequences))
        values: dict[str, list[np.ndarray]] = {task.name: [] for task in self.models.tasks}
        decoded: dict[str, list[np.ndarray]] = {task.name: [] for task in self.models.tasks}
        heard = heard or self.hear(store, video)
        done = 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            if progress:
                progress("predicting", done, total)

        for sequence in sequences:
            rows = slice(sequence.start, sequence.start + sequence.length)
            valid, rate = store.valid[rows], frame_rate(store.time_s[rows])
            features = self.features(store, sequence, step) | heard.features[sequence.id]
            predicted = self.models.predict(features, valid, rate, heard.valid[sequence.id])
            for task in self.models.tasks:
                values[task.name].append(predicted[task.name])
                decoded[task.name].append(self.models.decode(task, predicted[task.name], rate))
        return make_table(
            store,
            video,
            {name: np.concatenate(parts) for name, parts in values.items()},
            {name: np.concatenate(parts) for name, parts in decoded.items()},
            self.models.withheld,
        )

    @torch.inference_mode()
    def embed(self, faces: Sequence[tuple[bytes | None, np.ndarray | None]]) -> dict[str, np.ndarray]:
        """Features of some faces, each given as in :func:`preprocessing.views.face_views`: id to `[N, D]` float16."""
        embedders = self.models.embedders
        cut = [face_views(jpeg, [e.view for e in embedders.values()], landmarks) for jpeg, landmarks in faces]
        arithmetic = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        features = {}
        for (name, embedder), pictures in zip(embedders.items(), zip(*cut, strict=True), strict=True):
            size = embedder.encoder.config.image_size
            images = torch.stack([resize(picture, size) for picture in pictures])
            with arithmetic:
                features[name] = embedder(images.to(self.device)).half().cpu().numpy()
        return features

    def features(
        self, store: FacesStore, sequence: FaceSequence, step: Callable[[int], None] = lambda count: None
    ) -> dict[str, np.ndarray]:
        """Features of one sequence: feature id to `[T, D]` float16, gaps filled with the nearest frame.

        They are kept in files, because the features of a long clip are many times larger than its table.
        """
        embedders = self.models.embedders
        valid = store.valid[sequence.start : sequence.start + sequence.length]
        features = {
            name: scratch_array(sequence.length, embedder.encoder.dim, store.path)
            for name, embedder in embedders.items()
        }
        rows = np.flatnonzero(valid)
        faces = (face for face in store.pictures(sequence.start, sequence.length) if face[0])
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            for name, found in self.embed(list(islice(faces, len(batch)))).items():
                features[name][batch] = found
            step(len(batch))
        gaps = np.flatnonzero(~valid)
        for part in parts(len(gaps)):
            for item in features.values():
                item[gaps[part]] = fill_nearest(item, valid, gaps[part])
        return features


def _in_order(work: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> Iterator[Any]:
    """Results in the order of the jobs, of which at most `workers` are begun before they are asked for."""
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) == workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

"""From clips to tables, in Python: `Predictor(heads).predict("clip.mp4")`."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from checkpoints.errors import UserError
from checkpoints.framing import NAMED
from features.cache import fill_nearest
from preprocessing.detect import Detector
from preprocessing.faces import FacesStore
from preprocessing.faces import Sequence as FaceSequence
from preprocessing.items import Item
from preprocessing.shard import Settings
from preprocessing.views import face_views
from temporal.data import frame_rate
from wildaffect.inference.clips import find_faces_of, list_clips
from wildaffect.inference.models import load_models
from wildaffect.inference.onnx_export import use_onnx
from wildaffect.inference.progress import Progress
from wildaffect.inference.scratch import parts, scratch_array
from wildaffect.inference.table import make_table
from wildaffect.training.images import resize
from wildaffect.training.launch import choose_precision

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
        prior: How common the expressions are said to be: `stated` (the head's own), `trained` (as in training),
            `uniform`, or a JSON file of shares by expression.
        adapt: `person` takes each person's median over the clip for neutral; `clip` estimates the prior from the clip.

    Raises:
        UserError: A head or its encoder is missing, damaged or does not fit; there is no such device; the batch size
            is not positive.

    Example:
        Heads of any task will do; here `heads` are those of a finished `make demo` and `clip` is a video.

        >>> from wildaffect import Predictor
        >>> table = Predictor(heads).predict(clip)
        >>> table.column_names[:5]
        ['subject', 'frame', 'time_s', 'face', 'interpolated']
        >>> table.num_rows == frames_of(clip)
        True
        >>> frame = table.to_pandas()  # a pandas DataFrame, if you prefer one
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
        prior: str = "stated",
        adapt: Literal["none", "person", "clip"] = "none",
    ):
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: expected 1 or more")
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

    def predict(self, clip: Path | str, progress: Progress | None = None) -> pa.Table:
        """Predict one clip (a video or a picture).

        Returns:
            One row per frame and subject; the columns are described by `wildaffect.inference.table.COLUMNS`.

        Raises:
            UserError: The file cannot be read.
        """
        (item, *_), _ = list_clips([Path(clip)])
        with tempfile.TemporaryDirectory(prefix="wildaffect-") as folder:
            store, _ = self.find_faces(item, Path(folder) / "faces", progress)
            return self.predict_faces(store, item.video, progress)

    @cached_property
    def detector(self) -> Detector:
        """MTCNN, loaded for the first clip.

        Raises:
            UserError: It is not installed.
        """
        if no_detector is not None:
            raise no_detector
        return MTCNN(str(self.device))

    def find_faces(self, clip: Item, path: Path, progress: Progress | None = None) -> tuple[FacesStore, list[str]]:
        """Make a clip's faces store, framed as in training, with pictures as large as the largest encoder reads."""
        wanted = max(embedder.encoder.config.image_size for embedder in self.models.embedders.values())
        settings = Settings(112 if wanted <= 112 else 224, framing=self.models.framing.for_alignment)
        return find_faces_of(clip, path, self.detector, settings, progress=progress)

    def predict_faces(self, store: FacesStore, video: str, progress: Progress | None = None) -> pa.Table:
        """Predict one video of a faces store.

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
        done = 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            if progress:
                progress("predicting", done, total)

        for sequence in sequences:
            rows = slice(sequence.start, sequence.start + sequence.length)
            valid, rate = store.valid[rows], frame_rate(store.time_s[rows])
            features = self.features(store, sequence, step)
            predicted = self.models.predict(features, valid, rate)
            for task in self.models.tasks:
                values[task.name].append(predicted[task.name])
                decoded[task.name].append(self.models.decode(task, predicted[task.name], rate))
        return make_table(
            store,
            video,
            {name: np.concatenate(parts) for name, parts in values.items()},
            {name: np.concatenate(parts) for name, parts in decoded.items()},
        )

    @torch.inference_mode()
    def features(
        self, store: FacesStore, sequence: FaceSequence, step: Callable[[int], None] = lambda count: None
    ) -> dict[str, np.ndarray]:
        """Features of one sequence: feature id to `[T, D]` float16, gaps filled with the nearest frame.

        They are kept in files, because the features of a long clip are many times larger than its table.
        """
        embedders = self.models.embedders
        views = [embedder.view for embedder in embedders.values()]
        valid = store.valid[sequence.start : sequence.start + sequence.length]
        features = {
            name: scratch_array(sequence.length, embedder.encoder.dim, store.path)
            for name, embedder in embedders.items()
        }
        rows = np.flatnonzero(valid)
        faces = (face for face in store.pictures(sequence.start, sequence.length) if face[0])
        arithmetic = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            cut = [face_views(jpeg, views, landmarks) for jpeg, landmarks in islice(faces, len(batch))]
            for (name, embedder), pictures in zip(embedders.items(), zip(*cut, strict=True), strict=True):
                size = embedder.encoder.config.image_size
                images = torch.stack([resize(picture, size) for picture in pictures])
                with arithmetic:
                    features[name][batch] = embedder(images.to(self.device)).half().cpu().numpy()
            step(len(batch))
        gaps = np.flatnonzero(~valid)
        for part in parts(len(gaps)):
            for item in features.values():
                item[gaps[part]] = fill_nearest(item, valid, gaps[part])
        return features

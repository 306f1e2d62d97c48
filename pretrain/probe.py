"""A probe during stage 1: how well frozen features separate expressions, about which the loss says little."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from checkpoints.errors import UserError
from checkpoints.network import Encoder
from preprocessing.faces import FacesStore
from preprocessing.views import StillFrames
from wildaffect.tasks import TASKS
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.folds import hold_out, without
from wildaffect.tasks.labels import TRAIN, VALIDATION, Tracks, read_annotations
from wildaffect.training.images import readable

FRAMES = (2000, 1000)
"""Most frames to fit and to score, evenly spaced over the videos."""
NEIGHBOURS = 20
GRID = 4
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)


class Probe:
    """k-nearest-neighbour and linear classifiers on frozen features of labelled faces.

    They are fitted on the labels' training split and scored on the validation split (or, if there is none, on videos
    held out of the training split); no recording is in both. Nearest neighbours use the mean of the patch tokens. The
    linear classifier uses the tokens averaged to a 4 x 4 grid and concatenated, because in an aligned face a position
    tells which part of the face it shows.

    Args:
        faces: Faces store.
        labels: Expression annotations; see :func:`wildaffect.tasks.labels.read_annotations`.
        image_size: The encoder's input size in pixels.
        class_map: What class names and numbers mean, as JSON.

    Attributes:
        ids: Sequences of both; whatever the probe chooses, their labels chose.
        notes: What class names were taken for, and what was left out.

    Raises:
        UserError: There are too few labelled faces, or all show the same expression.
    """

    def __init__(self, faces: Path, labels: Path, image_size: int, class_map: Path | None = None) -> None:
        self.store, self.image_size = FacesStore(faces), image_size
        spans, names = self.store.spans(), ClassMap(class_map)
        train, scored = (
            read_annotations(labels, TASKS["expr"], split, class_map=names, spans=spans)
            for split in (TRAIN, VALIDATION)
        )
        self.notes = names.lines()
        if not scored and len(train) > 1:
            _, held = hold_out({id: len(track) for id, track in train.items()}, 0.3)
            scored = {id: train[id] for id in held}
        train = {id: train[id] for id in without(train, scored)}
        self.ids = sorted({*train, *scored} & spans.keys())
        (self.rows, self.targets), (self.scored_rows, self.scored_targets) = (
            _frames(self.store, part, most) for part, most in zip((train, scored), FRAMES, strict=True)
        )
        if len(set(self.targets.tolist())) < 2 or not len(self.scored_targets):
            raise UserError(
                f"--probe-labels {labels} and --probe-faces {faces} share {len(self.targets)} frames to fit and "
                f"{len(self.scored_targets)} to score; the probe needs both, and at least two expressions"
            )

    @torch.no_grad()
    def score(self, encoder: Encoder) -> dict[str, float]:
        """Macro-F1 over the eight expressions (the challenge's score): `probe_knn` and `probe_linear`."""
        training = encoder.training
        encoder.eval()
        mean, places = self._features(encoder, self.rows)
        scored_mean, scored_places = self._features(encoder, self.scored_rows)
        encoder.train(training)
        found = {
            "probe_knn": nearest_neighbours(mean, self.targets, scored_mean),
            "probe_linear": linear(places, self.targets, scored_places),
        }
        labels = self.scored_targets[:, None]
        mask = np.ones_like(labels, bool)
        return {
            name: float(TASKS["expr"].score(guess[:, None], labels, mask)["score"]) for name, guess in found.items()
        }

    def _features(self, encoder: Encoder, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """`[N, D]` means and `[N, 16 D]` places of some rows, float32 on the CPU."""
        means, places = [], []
        device = next(encoder.parameters()).device
        stills = StillFrames(self.store, ["full"], self.image_size)
        for start in range(0, len(rows), 128):
            images = stills.__getitems__(rows[start : start + 128].tolist())["images"][:, 0].to(device)
            tokens = encoder.backbone.forward_features(encoder.normalise(images))
            tokens = tokens[:, encoder.backbone.num_prefix_tokens :].float()
            side = int(tokens.shape[1] ** 0.5)
            grid = tokens.transpose(1, 2).unflatten(2, (side, side))
            means.append(tokens.mean(1).cpu())
            places.append(functional.adaptive_avg_pool2d(grid, min(GRID, side)).flatten(1).cpu())
        return torch.cat(means), torch.cat(places)


def nearest_neighbours(features: torch.Tensor, targets: np.ndarray, queries: torch.Tensor) -> np.ndarray:
    """Classes `[M]` by votes of the nearest neighbours, weighted by cosine similarity and by the rarity of classes."""
    centre = features.mean(0)
    features, queries = (functional.normalize(part - centre, dim=1) for part in (features, queries))
    similarity, nearest = (queries @ features.T).topk(min(NEIGHBOURS, len(features)), dim=1)
    votes = torch.zeros(len(queries), len(TASKS["expr"].columns))
    weight = _rarity(targets)
    label = torch.from_numpy(targets)[nearest]
    votes.scatter_add_(1, label, (similarity / 0.1).exp() * weight[label])
    return votes.argmax(1).numpy()


def linear(features: torch.Tensor, targets: np.ndarray, queries: torch.Tensor) -> np.ndarray:
    """Classes `[M]` by a ridge classifier with balanced classes.

    The penalty is chosen on every fourth block of fifty of the frames to fit (frames are in the order of videos); then
    all are fitted. It is solved in the dual form, so the cost depends mainly on the number of frames.
    """
    mean, std = features.mean(0), features.std(0) + 1e-6
    features, queries = (torch.cat([(x - mean) / std, torch.ones(len(x), 1)], 1) for x in (features, queries))
    aside = (np.arange(len(targets)) // 50) % 4 == 3
    if not aside.any() or aside.all():
        aside = np.arange(len(targets)) % 4 == 3

    def fit(chosen: np.ndarray, penalty: float, points: torch.Tensor) -> np.ndarray:
        x, root = features[chosen], _rarity(targets[chosen])[torch.from_numpy(targets[chosen])].sqrt()[:, None]
        wanted = functional.one_hot(torch.from_numpy(targets[chosen]), len(TASKS["expr"].columns)).float() * 2 - 1
        weighted = x * root
        kernel = weighted @ weighted.T
        kernel.diagonal().add_(penalty * kernel.diagonal().mean() * len(x))
        solved = torch.linalg.solve(kernel, wanted * root)
        return ((points @ weighted.T) @ solved).argmax(1).numpy()

    accuracy = [np.mean(fit(~aside, penalty, features[aside]) == targets[aside]) for penalty in PENALTIES]
    return fit(np.ones(len(targets), bool), PENALTIES[int(np.argmax(accuracy))], queries)


def _rarity(targets: np.ndarray) -> torch.Tensor:
    """Class weights `[8]` that give all classes present the same total weight."""
    counts = torch.bincount(torch.from_numpy(targets), minlength=len(TASKS["expr"].columns)).float()
    return torch.where(counts > 0, len(targets) / counts.clamp_min(1), 0) / (counts > 0).sum()


def _frames(store: FacesStore, tracks: Tracks, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows with a face and a label, and the labels, int64 `[N]` each."""
    rows, targets = [], []
    for seq in store.sequences():
        track = tracks.get(seq.id)
        if track is None:
            continue
        place = np.arange(seq.first_frame - 1, min(seq.first_frame - 1 + seq.length, len(track)))
        row = seq.start + place - (seq.first_frame - 1)
        usable = track.mask[place, 0] & store.valid[row]
        rows.append(row[usable])
        targets.append(track.labels[place[usable], 0].astype(np.int64))
    if not rows:
        return np.zeros(0, int), np.zeros(0, np.int64)
    every = np.concatenate(rows), np.concatenate(targets)
    chosen = np.linspace(0, len(every[0]) - 1, min(most, len(every[0]))).astype(int)
    chosen = chosen[[readable(store.jpeg(row)) for row in every[0][chosen].tolist()]]
    return every[0][chosen], every[1][chosen]

"""How well frozen features tell expressions apart while stage 1 trains: its loss alone says little about that."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from checkpoints.encoder import Encoder
from checkpoints.errors import UserError
from preprocessing.faces import FacesStore
from wildaffect.tasks import TASKS
from wildaffect.tasks.folds import hold_out, without
from wildaffect.tasks.labels import TRAIN, VALIDATION, Tracks, read_annotations
from wildaffect.training.images import decode, readable, resize

FRAMES = (2000, 1000)
"""Most frames that are fitted and scored, evenly spaced over the videos."""
NEIGHBOURS = 20
GRID = 4
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)


class Probe:
    """k nearest neighbours and a linear classifier on frozen features of labelled faces.

    Frames of the labels' training split are fitted and those of its validation split are scored (videos held out of the
    first where there is no second); no recording is in both. The features of the neighbours are the mean of the patch
    tokens; those of the linear classifier are the tokens averaged to a 4 x 4 grid, side by side, because in an aligned
    face a place says which part of the face it is.

    Args:
        faces: Faces store.
        labels: Expression annotations; see :func:`wildaffect.tasks.labels.read_annotations`.
        image_size: Side of the encoder's input in pixels.

    Raises:
        UserError: There are too few labelled faces, or only of one kind.
    """

    def __init__(self, faces: Path, labels: Path, image_size: int) -> None:
        self.store, self.image_size = FacesStore(faces), image_size
        train, scored = (read_annotations(labels, TASKS["expr"], split) for split in (TRAIN, VALIDATION))
        if not scored and len(train) > 1:
            _, held = hold_out({id: len(track) for id, track in train.items()}, 0.3)
            scored = {id: train[id] for id in held}
        train = {id: train[id] for id in without(train, scored)}
        (self.rows, self.targets), (self.scored_rows, self.scored_targets) = (
            _frames(self.store, part, most) for part, most in zip((train, scored), FRAMES, strict=True)
        )
        if len(set(self.targets.tolist())) < 2 or not len(self.scored_targets):
            raise UserError(
                f"--probe-labels {labels} and --probe-faces {faces} share {len(self.targets)} frames to fit and "
                f"{len(self.scored_targets)} to score, and need two expressions"
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
        for start in range(0, len(rows), 128):
            pictures = [decode(self.store.jpeg(row) or b"") for row in rows[start : start + 128].tolist()]
            images = torch.stack([resize(picture, self.image_size) for picture in pictures]).to(device)
            tokens = encoder.backbone.forward_features(encoder.normalise(images))
            tokens = tokens[:, encoder.backbone.num_prefix_tokens :].float()
            side = int(tokens.shape[1] ** 0.5)
            grid = tokens.transpose(1, 2).unflatten(2, (side, side))
            means.append(tokens.mean(1).cpu())
            places.append(functional.adaptive_avg_pool2d(grid, min(GRID, side)).flatten(1).cpu())
        return torch.cat(means), torch.cat(places)


def nearest_neighbours(features: torch.Tensor, targets: np.ndarray, queries: torch.Tensor) -> np.ndarray:
    """`[M]` class with the most cosine similarity among the nearest neighbours, classes weighted by their rarity."""
    centre = features.mean(0)
    features, queries = (functional.normalize(part - centre, dim=1) for part in (features, queries))
    similarity, nearest = (queries @ features.T).topk(min(NEIGHBOURS, len(features)), dim=1)
    votes = torch.zeros(len(queries), len(TASKS["expr"].columns))
    weight = _rarity(targets)
    label = torch.from_numpy(targets)[nearest]
    votes.scatter_add_(1, label, (similarity / 0.1).exp() * weight[label])
    return votes.argmax(1).numpy()


def linear(features: torch.Tensor, targets: np.ndarray, queries: torch.Tensor) -> np.ndarray:
    """`[M]` class of a ridge classifier with balanced classes.

    Its penalty is chosen on every fourth stretch of fifty of the frames it is fitted on (frames are in the order of
    videos); then all are fitted. Solved in the dual, so that the cost goes with the number of frames.
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
    """`[8]` weights that give every class that is there the same mass."""
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

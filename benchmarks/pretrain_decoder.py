"""Does the light decoder cost quality? Stage 1 with both decoders at equal steps, and a linear probe on unseen people.

    python benchmarks/pretrain_decoder.py --unlabelled data/pool_faces --faces data/small_faces --corpus data/small \
        --out runs/decoder

Recipe `small` (ViT-S/16 at 112 px: 7 x 7 patches) is too slow for thousands of steps on two CPU cores, so everything is
reduced in proportion: widths to a quarter, depths to a half, pixels to a half with as many patches (56 px in patches
of 8). The recipe's 4 x 384 decoder becomes 2 x 96, the original's 8 x 512 becomes 4 x 128; mask ratio, normalised
targets and crops stay the recipe's. An encoder with random weights shows where the probe starts, the shipped one
(another network, 563,200 pictures) where longer training leads.

The probe is ridge regression (ridge classification with balanced classes) on frozen patch tokens, side by side
(`places`) or averaged (`mean`). Its penalty is chosen in folds of the training people; validation and test people are
scored. Every run is a run of stage 1 in a folder of its own, so the study goes on where it was stopped.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from checkpoints.artifact import read_json, write_json
from checkpoints.encoder import Encoder, load_encoder
from checkpoints.errors import guarded
from preprocessing.faces import FacesStore
from pretrain.recipes import RECIPES, Pretrain
from tasks import TASKS
from tasks.labels import TRAIN, VALIDATION, read_annotations
from tasks.metrics import ccc
from training.images import decode, resize

DECODERS = {"light": (96, 2, 3), "full": (128, 4, 4)}  # width, blocks, heads (of 32, as in the original)
SHIPPED = Path(__file__).parents[1] / "checkpoints" / "demo"
POOLINGS = ("places", "mean")
PROBED = ("expr", "va")
PENALTIES = tuple(10.0**power for power in range(2, 7))


@dataclass
class Config:
    """Train with both decoders, probe, compare."""

    unlabelled: Path
    """Faces store for stage 1."""
    faces: Path
    """Faces store of the labelled people; none of them may be in `unlabelled`."""
    corpus: Path
    """SynthWild corpus that `faces` was made from: its annotations and answers."""
    out: Path
    """Folder of all runs."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the runs with each decoder; two or more."""
    steps: int = 600
    """Optimizer steps per run."""
    result: Path = Path("benchmarks/results/pretrain_decoder.json")
    """Where to record."""


def recipe(config: Config, decoder: str, seed: int) -> Pretrain:
    """`small`, reduced."""
    width, depth, heads = DECODERS[decoder]
    return replace(
        RECIPES["small"][1],
        faces=(config.unlabelled,),
        out=config.out / f"{decoder}_{seed}",
        image_size=56,
        patch_size=8,
        embed_dim=96,
        depth=6,
        num_heads=3,
        decoder_dim=width,
        decoder_depth=depth,
        decoder_heads=heads,
        batch_size=64,
        steps=config.steps,
        lr=1e-3,
        precision="fp32",
        workers=0,
        save_every=250,
        log_every=50,
        seed=seed,
    )


def main(config: Config) -> dict[str, Any]:
    """Run what is not there yet; returns the table."""
    from pretrain.product import build
    from pretrain.run import main as pretrain

    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in (*DECODERS, "untrained")}
    rows["shipped"] = [cached_probe(config, config.out / "shipped", load_encoder(SHIPPED))]
    for seed in config.seeds:
        for decoder in DECODERS:
            settings = recipe(config, decoder, seed)
            trained = pretrain(settings)
            rows[decoder].append(cached_probe(config, settings.out) | {"loss": trained["loss"]})
        torch.manual_seed(seed)
        fresh = config.out / f"untrained_{seed}"
        rows["untrained"].append(cached_probe(config, fresh, build(recipe(config, "light", seed)).encoder.eval()))
    result: dict[str, Any] = {
        "synthetic": True,
        "stands_for": "recipe `small` with decoder 4x384 (light) against 8x512 (full), reduced in proportion",
        "encoder": "96 wide, 6 blocks, 56 px in patches of 8 (ViT-S/16 at 112 px: 384, 12 blocks, as many patches)",
        "decoders": {name: {"dim": d, "depth": n, "heads": h} for name, (d, n, h) in DECODERS.items()},
        "steps": config.steps,
        "batch_size": 64,
        "seeds": list(config.seeds),
        "unlabelled_pictures": int(FacesStore(config.unlabelled).valid.sum()),
        "scored": "validation and test people of the corpus, none in the probe's training, none in stage 1",
        "scored_sequences": len(rows["light"][0]["statistics"]["places expr"]),
        "score": "expr: macro F1; va: mean CCC",
        "loss": {name: [run["loss"] for run in rows[name]] for name in DECODERS},
        "probe": {
            name: {key: [run["scores"][key] for run in runs] for key in runs[0]["scores"]}
            for name, runs in rows.items()
        },
        "light_minus_full": {key: difference(rows, key) for key in rows["light"][0]["scores"]},
    }
    write_json(config.result, result)
    for key, found in result["light_minus_full"].items():
        print(f"{key}: light - full = {found}")
    return result


def cached_probe(config: Config, run: Path, encoder: Encoder | None = None) -> dict[str, Any]:
    """Probe the encoder of a run, or read what an earlier probe found."""
    path = run / "probe.json"
    if not path.exists():
        write_json(path, probe(config, encoder or load_encoder(run)))
    return dict(read_json(path))


def probe(config: Config, encoder: Encoder) -> dict[str, Any]:
    """Scores of linear probes, and what they are made of by scored sequence."""
    store = FacesStore(config.faces)
    features = patch_tokens(encoder, store)
    scores: dict[str, float] = {}
    statistics: dict[str, list[Any]] = {}
    for pooling in POOLINGS:
        flat = features.mean(axis=1) if pooling == "mean" else features.reshape(len(features), -1)
        for name in PROBED:
            task = TASKS[name]
            train = labelled(store, read_annotations(config.corpus / "release", task, TRAIN))
            scored = labelled(store, read_annotations(config.corpus / "release", task, VALIDATION))
            scored |= labelled(store, read_annotations(config.corpus / "answers" / name, task))
            model = fit(name, flat, train)
            parts = []
            for rows, labels in scored.values():
                predicted = model.predict(flat[rows]).reshape(len(rows), task.label_width)
                decoded = np.clip(predicted, -1, 1) if name == "va" else predicted
                parts.append(task.statistics(decoded, labels, np.ones(labels.shape, bool)))
            scores[f"{pooling} {name}"] = float(task.score_statistics(np.sum(parts, axis=0))["score"])
            statistics[f"{pooling} {name}"] = [part.tolist() for part in parts]
    return {"scores": scores, "statistics": statistics}


def labelled(store: FacesStore, tracks: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows of the store and their labels `[n, W]` by sequence, where everything is annotated and there is a face."""
    found = {}
    for sequence in store.sequences():
        if sequence.id in tracks:
            track = tracks[sequence.id]
            place = np.arange(sequence.length) + sequence.first_frame - 1
            place = place[place < len(track)]
            rows = sequence.start + place - sequence.first_frame + 1
            seen = store.valid[rows] & track.mask[place].all(axis=1)
            if seen.any():
                found[sequence.id] = (rows[seen], track.labels[place[seen]])
    return found


@torch.inference_mode()
def patch_tokens(encoder: Encoder, store: FacesStore) -> np.ndarray:
    """Frozen patch tokens `[rows of the store, patches, D]`; zeros where there is no face."""
    size, prefix = encoder.config.image_size, encoder.backbone.num_prefix_tokens
    rows = np.flatnonzero(store.valid)
    tokens = None
    for part in np.array_split(rows, len(rows) // 128 + 1):
        images = torch.stack([resize(decode(store.jpeg(int(row)) or b""), size) for row in part])
        found = encoder.backbone.forward_features(encoder.normalise(images))[:, prefix:].numpy()
        if tokens is None:
            tokens = np.zeros((len(store), *found.shape[1:]), np.float32)
        tokens[part] = found
    assert tokens is not None  # a store without faces is refused when it is opened
    return tokens


def fit(name: str, features: np.ndarray, train: dict[str, tuple[np.ndarray, np.ndarray]]) -> Any:
    """Linear model on every other training frame; the penalty is chosen in five folds of sequences."""
    from sklearn.linear_model import Ridge, RidgeClassifier
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Neighbouring frames of a video are nearly the same picture.
    rows = np.concatenate([rows[::2] for rows, _ in train.values()])
    targets = np.concatenate([labels[::2] for _, labels in train.values()])
    # The two faces of one video stand in the same light: they stay in one fold.
    videos = [id.removesuffix("_left").removesuffix("_right") for id in train]
    groups = np.repeat(videos, [len(rows[::2]) for rows, _ in train.values()])
    if name == "va":
        linear = ("ridge", Ridge(), make_scorer(mean_ccc), targets)
    else:
        linear = ("ridgeclassifier", RidgeClassifier(class_weight="balanced"), "f1_macro", targets[:, 0].astype(int))
    step, model, scoring, wanted = linear
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model), {f"{step}__alpha": PENALTIES}, scoring=scoring, cv=GroupKFold(5)
    )
    return search.fit(features[rows], wanted, groups=groups)


def mean_ccc(target: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of the columns' CCCs."""
    return float(np.mean([ccc(predicted[:, i], target[:, i]) for i in range(target.shape[1])]))


def difference(rows: dict[str, list[dict[str, Any]]], key: str, draws: int = 2000) -> dict[str, Any]:
    """Light minus full: by seed, with the error over seeds, and an interval over scored sequences (bootstrap)."""
    by_seed = [
        light["scores"][key] - full["scores"][key] for light, full in zip(rows["light"], rows["full"], strict=True)
    ]
    task = TASKS[key.split()[1]]
    parts = {name: np.array([run["statistics"][key] for run in rows[name]]) for name in DECODERS}
    count = parts["light"].shape[1]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        weight = np.bincount(rng.integers(count, size=count), minlength=count)
        score = {
            name: np.mean([task.score_statistics(np.tensordot(weight, run, 1))["score"] for run in part])
            for name, part in parts.items()
        }
        drawn.append(float(score["light"] - score["full"]))
    return {
        "mean": float(np.mean(by_seed)),
        "by_seed": by_seed,
        "standard_error_seeds": float(np.std(by_seed, ddof=1) / np.sqrt(len(by_seed))),
        "interval_95_sequences": [float(edge) for edge in np.quantile(drawn, [0.025, 0.975])],
    }


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))

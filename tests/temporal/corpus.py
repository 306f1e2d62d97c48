"""A corpus for the tests of stage 3: label files, and a cache whose features show the labels through noise."""

from pathlib import Path

import numpy as np

from features.cache import finish_cache, write_features
from wildaffect.tasks import TASKS

# Video -> frames; the label files of some have a line more than the cache has frames, as in the release.
TRAIN = {f"{n}-30-640x360": 24 + 7 * n for n in range(1, 9)} | {"9": 40, "9_left": 40, "video10_1": 30, "video10_2": 30}
VALIDATION = {"val1": 50, "val2_right": 31, "val3": 44}
TEST = {"test1": 60, "test2_left": 53}
WIDTH = 12


def make_labels(name: str, length: int, rng: np.random.Generator) -> np.ndarray:
    """Slowly changing labels of one task, with some frames not annotated."""
    task = TASKS[name]
    if name == "va":
        labels = np.clip(np.cumsum(rng.normal(0, 0.12, (length, 2)), axis=0) + rng.uniform(-0.5, 0.5, 2), -1, 1).round(
            3
        )
    elif name == "expr":
        labels = np.repeat(rng.integers(0, 8, length // 8 + 1), 8)[:length, None]
    else:
        labels = np.repeat(rng.random((length // 6 + 1, 12)) < 0.25, 6, axis=0)[:length]
    labels = labels.astype(np.float32)
    labels[rng.random(labels.shape) < 0.05] = task.marker
    return labels


def write_labels(folder: Path, id: str, name: str, labels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    number = (lambda x: f"{x:.3f}") if name == "va" else (lambda x: str(int(x)))
    lines = [",".join(number(x) for x in row) for row in labels]
    (folder / f"{id}.txt").write_text("\n".join([TASKS[name].header, *lines]) + "\n")


def write_cache(path: Path, features: dict[str, np.ndarray], seed: int = 0, **fields: object) -> Path:
    rng = np.random.default_rng(seed)
    for id, array in features.items():
        valid = rng.random(len(array)) > 0.1
        valid[0] = True
        write_features(path, id, features=array, valid=valid, time_s=np.arange(len(array)) / 25, first_frame=1)
    options = {"feature_id": f"id of {path.name}", "encoder": "../encoder", **fields}
    finish_cache(path, made_by="test", config={}, parents={}, dim=len(next(iter(features.values()))[0]), **options)
    return path


def make_corpus(root: Path, seed: int = 0) -> Path:
    """`root/release` (annotations, example files), `root/answers/<task>`, `root/cache`, a second cache `root/view`."""
    rng = np.random.default_rng(seed)
    project = rng.normal(size=(22, WIDTH))
    features, view = {}, {}
    for split, sizes in (("Train_Set", TRAIN), ("Validation_Set", VALIDATION), ("Test", TEST)):
        for number, (id, length) in enumerate(sizes.items()):
            latent = np.zeros((length, 22))
            for name, task in TASKS.items():
                labels = make_labels(name, length, rng)
                folder = root / "release" / "6th ABAW Annotations" / task.folders[0] / split
                write_labels(root / "answers" / name if split == "Test" else folder, id, name, labels)
                shown = np.where(task.mask(labels), labels, 0)
                if name == "expr":
                    latent[np.arange(length), 2 + shown[:, 0].astype(int)] = 1
                else:
                    latent[:, slice(0, 2) if name == "va" else slice(10, 22)] = shown
            frames = length - number % 2  # every other label file has a line more
            features[id] = (latent @ project + rng.normal(0, 0.3, (length, WIDTH)))[:frames]
            view[id] = rng.normal(size=(frames, 5))
    write_cache(root / "cache", features)
    write_cache(root / "view", view)
    examples = root / "release" / "test_set_examples"
    examples.mkdir()
    for name, task in TASKS.items():
        rows = [f"{id}/{frame:05d}.jpg" for id, length in TEST.items() for frame in range(1, length + 1)]
        zeros = ",".join("0" * task.label_width)
        header = f"image_location,{task.header}\n"
        (examples / f"{name}.txt").write_text(header + "".join(f"{row},{zeros}\n" for row in rows))
    mtl = [f"test1/{frame:05d}.jpg" for frame in (1, 8, 17)]
    (examples / "mtl.txt").write_text("image,valence,arousal,expression,aus\n" + "\n".join(mtl) + "\n")
    return root

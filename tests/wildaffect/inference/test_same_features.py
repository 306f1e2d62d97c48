"""Extraction and `Predictor` turn the same row of a store into the same feature."""

from typing import get_args

import numpy as np
import pytest

from checkpoints.framing import OURS
from features.cache import FeatureCache
from features.run import Extract, main
from preprocessing.align import encode_jpeg
from preprocessing.faces import FacesStore, ViewName
from preprocessing.write_faces import finish_store, write_shard
from tests.wildaffect.inference.conftest import make_head
from wildaffect.inference.predictor import Predictor

VIEWS = get_args(ViewName)
GAP = 5


def rows(size):
    """Random pictures; the faces were turned and far away in the source, and are not perfectly aligned."""
    rng = np.random.default_rng(size)
    for frame in range(1, 13):
        coarse = rng.integers(0, 256, (7, 7, 3), np.uint8)
        picture = np.kron(coarse, np.ones((size // 7, size // 7, 1), np.uint8))
        points = (OURS.template(size) + rng.normal(0, size / 15, (5, 2))) @ np.array([[3, 1], [-1, 3]]) + (500, 70)
        seen = frame != GAP
        yield {
            "video": "clip",
            "subject": "",
            "frame": frame,
            "time_s": frame / 25,
            "image": encode_jpeg(picture) if seen else None,
            "landmarks": points.ravel().tolist() if seen else None,
        }


@pytest.fixture(scope="module", params=[112, 224])
def both(request, encoder, tmp_path_factory):
    """Features by view: extracted, and made by `Predictor` in other batches."""
    folder, size = tmp_path_factory.mktemp(f"store{request.param}"), request.param
    write_shard(folder / "faces", "clip", rows(size))
    finish_store(folder / "faces", made_by="test", config={}, image_size=size, problems=[], framing=OURS)
    main(
        Extract(
            encoder=str(encoder[0]), faces=folder / "faces", out=folder / "caches", view=VIEWS, precision="fp32",
            batch_size=5, workers=0,
        )
    )  # fmt: skip
    predictor = Predictor([make_head(folder / view, "va", [encoder], view=view) for view in VIEWS], device="cpu")
    predictor.precision, predictor.batch_size = "fp32", 4
    store = FacesStore(folder / "faces")
    made = predictor.features(store, store.sequences()[0])
    caches = {view: FeatureCache(folder / "caches" / view) for view in VIEWS}
    return {view: (cache.read("clip").features, made[cache.feature_id]) for view, cache in caches.items()}


@pytest.mark.parametrize("view", VIEWS)
def test_extraction_and_predictor_agree(both, view):
    extracted, predicted = both[view]
    assert extracted.shape == (12, 24) and np.abs(np.diff(extracted[:4].astype(float), axis=0)).max() > 0.1
    np.testing.assert_allclose(predicted, extracted, atol=1e-3)


@pytest.mark.parametrize("view", [view for view in VIEWS if view.endswith("_landmarks")])
def test_landmarks_make_a_difference(both, view):
    fixed, moved = both[view.removesuffix("_landmarks")][1], both[view][1]
    assert np.abs(fixed.astype(float) - moved).max() > 0.05

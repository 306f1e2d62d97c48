from dataclasses import replace

import numpy as np
import pytest
import torch

from checkpoints.errors import UserError
from features.cache import FeatureCache, finish_cache, write_features
from temporal.caches import open_caches
from temporal.data import build_table, frame_rate
from temporal.splits import apart, make_splits
from temporal.table_facts import feature_moments
from tests.temporal.corpus import TRAIN
from wildaffect.tasks import TASKS
from wildaffect.tasks.folds import grouped_folds
from wildaffect.tasks.label_track import LabelTrack
from wildaffect.tasks.labels import TRAIN as TRAIN_SET
from wildaffect.tasks.labels import read_annotations


@pytest.fixture(scope="module")
def table(corpus):
    caches = open_caches([corpus / "cache", corpus / "view"])
    tracks = {name: read_annotations(corpus / "release", task, TRAIN_SET) for name, task in TASKS.items()}
    return build_table(caches, tracks, list(TASKS.values()))


def test_sequences_are_as_long_as_their_labels(table):
    assert dict(zip(table.ids, (n for _, n in table.spans), strict=True)) == TRAIN
    assert table.features.shape == (sum(TRAIN.values()), 17) and table.features.dtype == torch.float16
    assert table.valid.shape[1] == 2


def test_rows_are_the_caches_and_the_labels(table, corpus):
    cache = FeatureCache(corpus / "cache")
    for id in ("9_left", "3-30-640x360"):
        start, length = table.spans[table.select([id])[0]]
        read = cache.read(id, length)
        np.testing.assert_array_equal(table.features[start : start + length, :12], read.features)
        np.testing.assert_array_equal(table.valid[start : start + length, 0], read.valid)
        labels = read_annotations(corpus / "release", TASKS["au"], TRAIN_SET)[id]
        np.testing.assert_array_equal(table.labels["au"][start : start + length], labels.labels)
        np.testing.assert_array_equal(table.mask["au"][start : start + length], labels.mask)


def test_votes_are_trained_on_as_distributions(corpus, tmp_path):
    """Heads are trained on raters' votes as soft targets; scores and counts use the class with most votes."""
    id, _ = next(item for item in TRAIN.items() if "_" not in item[0])
    (tmp_path / "votes.csv").write_text(f"video,frame,neutral,happiness\n{id},1,6,2\n{id},3,1,3\n")
    tracks = {"expr": read_annotations(tmp_path / "votes.csv", TASKS["expr"], TRAIN_SET)}
    table = build_table(open_caches([corpus / "cache"]), tracks, [TASKS["expr"]])
    rows = torch.arange(4)[None]
    targets, mask = table.targets("expr", rows)
    assert mask[0, :, 0].tolist() == [True, False, True, False]
    torch.testing.assert_close(targets[0, [0, 2]][:, [0, 4]], torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    assert table.labels["expr"][:4, 0].tolist() == [0, -1, 4, -1]
    logits = torch.randn(1, 4, 8)
    wanted = -(targets * logits.log_softmax(-1)).sum(-1)[0, [0, 2]].mean()
    torch.testing.assert_close(TASKS["expr"].loss(logits, targets, mask), wanted)


def test_frame_rates_come_from_the_clock(table):
    assert table.rates == [pytest.approx(25)] * len(table.ids)
    assert frame_rate(np.array([0.0])) == 30 and frame_rate(np.array([0.0, 0.1, 0.2, 0.9])) == pytest.approx(10)
    assert frame_rate(np.array([0.0, 0.1, 0.2, np.nan, np.nan])) == pytest.approx(10)
    assert frame_rate(np.full(5, np.nan)) == 30


def test_a_second_person_may_be_seen_for_a_short_time_only(tmp_path):
    """Seen from frame 1 to 10 of 100. Of a main subject, the same shows another video: the store has all its frames."""
    for id in ("v", "v_left"):
        arrays = {"features": np.ones((10, 4)), "valid": np.ones(10, bool), "time_s": np.arange(10) / 25}
        write_features(tmp_path, id, first_frame=1, **arrays)
    finish_cache(tmp_path, made_by="test", config={}, parents={}, feature_id="id", dim=4)
    labels = np.zeros((100, 2), np.float32)
    track = LabelTrack(labels, TASKS["va"].mask(labels), tmp_path / "v_left.txt")
    table = build_table([FeatureCache(tmp_path)], {"va": {"v_left": track}}, [TASKS["va"]])
    assert table.valid[:, 0].tolist() == [True] * 10 + [False] * 90
    with pytest.raises(UserError, match="not from the same video"):
        build_table([FeatureCache(tmp_path)], {"va": {"v": track}}, [TASKS["va"]])


def test_splits_keep_recordings_whole():
    (split,) = make_splits(TRAIN, ["val1"], folds=[], share=0.3, seed=1, seen=())
    assert not set(split.train) & set(split.tune) and sorted(split.train + split.tune) == sorted(TRAIN)
    for pair in (("9", "9_left"), ("video10_1", "video10_2")):
        assert len({id in split.tune for id in pair}) == 1
    parts = grouped_folds({id: np.array([length]) for id, length in TRAIN.items()}, 3)
    folds = make_splits(TRAIN, [], folds=parts, share=0.1, seed=0, seen=())
    assert sorted(id for fold in folds for id in fold.tune) == sorted(TRAIN)
    assert all(sorted(fold.train + fold.tune) == sorted(TRAIN) for fold in folds)


def test_what_shares_a_recording_with_validation_is_not_trained_on(capsys):
    """Subjects and parts by the rule of every split; ids of both, and why each is left out, are counted."""
    train = ["a", "b_left", "c", "d", "video45_1", "24-30-1920x1080-1", "video46"]
    assert apart(train, ["b_right", "d", "video45_2", "24-30-1920x1080-2_left"]) == ["a", "c", "video46"]
    said = capsys.readouterr().out
    assert "1 of 7 training sequences are in the validation split as well, usually another task's: not" in said
    assert "3 of 7 training sequences share their recording with a validation video" in said


def test_features_are_standardised_cache_by_cache(table):
    """Frames without a face in one cache count only towards the other's mean."""
    valid = table.valid.clone()
    valid[::3, 1] = ~valid[::3, 1]
    table = replace(table, valid=valid)
    rows = torch.cat([torch.arange(start, start + length) for start, length in table.spans[:4]])
    mean, std = feature_moments(table, table.spans[:4], (12, 5))
    for cache, columns in enumerate((slice(0, 12), slice(12, 17))):
        seen = table.features[rows][table.valid[rows, cache]][:, columns].double()
        torch.testing.assert_close(mean[columns], seen.mean(0).float())
        torch.testing.assert_close(std[columns], seen.std(0, correction=0).float())
    assert not table.valid[rows, 0].equal(table.valid[rows, 1])  # or the two would be one case


def test_a_list_of_frames_may_end_before_the_video(corpus, tmp_path):
    """As in MTL files and tables; a label file that ends early belongs to another video."""
    cache = FeatureCache(corpus / "cache")
    last = cache.span("9_left")[1]
    lines = [f"{id},{frame},0.5,-0.5" for id, frame in (("9_left", 2), ("9_left", 5))]
    (tmp_path / "labels.csv").write_text("\n".join(["video,frame,valence,arousal", *lines]) + "\n")
    tracks = read_annotations(tmp_path / "labels.csv", TASKS["va"], TRAIN_SET)
    table = build_table([cache], {"va": tracks}, [TASKS["va"]])
    assert table.spans == [(0, last)] and last > 5 + 5
    assert np.flatnonzero(table.mask["va"][:, 0]).tolist() == [1, 4]
    dense = {"9_left": replace(tracks["9_left"], listed=False)}
    with pytest.raises(UserError, match="not from the same video"):
        build_table([cache], {"va": dense}, [TASKS["va"]])

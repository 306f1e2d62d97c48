from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from checkpoints.errors import UserError
from pretrain.mixture import FacesMixture, as_text
from tests.pretrain.corpus import make_store


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return [
        make_store(folder / "a", range(20)),
        make_store(folder / "b", [None, *range(100, 109)], videos=5),
        make_store(folder / "c", [3, 200, 201, 4]),  # two pictures of the first
    ]


def drawn(mixture, epochs):
    return [[mixture.pick(epoch, place) for place in range(len(mixture))] for epoch in range(epochs)]


def test_every_picture_once_and_none_twice(stores):
    mixture = FacesMixture(stores)
    assert len(mixture) == 20 + 9 + 2
    assert [part["duplicates"] for part in mixture.statistics(1)] == [0, 0, 2]
    assert sorted(drawn(mixture, 1)[0]) == list(range(31))
    assert mixture.name(20) == f"{stores[1]}: video v0, frame 2"  # its first row has no picture
    assert len({mixture.jpeg(index) for index in range(31)}) == 31


def test_weights_are_shares_of_every_epoch_and_passes_are_whole(stores):
    mixture = FacesMixture(stores[:2], weights=(1, 3), seed=5)
    epochs = drawn(mixture, 12)
    of_first = [sum(index < 20 for index in epoch) for epoch in epochs]
    assert of_first == [7] * 12  # a quarter of 29, rounded
    seen = [index for epoch in epochs for index in epoch]
    for start, count in ((0, 20), (20, 9)):
        mine = [index for index in seen if start <= index < start + count]
        for turn in range(len(mine) // count):  # each picture once before one comes twice
            assert sorted(mine[turn * count : (turn + 1) * count]) == list(range(start, start + count))
    assert drawn(FacesMixture(stores[:2], weights=(1, 3), seed=5), 12) == epochs
    assert drawn(FacesMixture(stores[:2], weights=(1, 3), seed=6), 12) != epochs
    shares = mixture.statistics(epochs=10)
    assert [part["share"] for part in shares] == pytest.approx([7 / 29, 22 / 29])
    assert [part["passes"] for part in shares] == pytest.approx([10 * 7 / 20, 10 * 22 / 9])


def test_excluded_recordings(stores, tmp_path):
    path = tmp_path / "leave_out.txt"
    path.write_text("v1_left\nnobody\n")
    with pytest.raises(UserError, match="1 of its 2 ids match nothing here: 'nobody'"):
        FacesMixture(stores, exclude=path)
    path.write_bytes("\ufeffv1_left\r\n".encode())
    mixture = FacesMixture(stores, exclude=path)
    assert [part["excluded"] for part in mixture.statistics(1)] == [10, 5, 0]
    assert mixture.videos == ["v0"]
    assert not any("video v1" in mixture.name(index) for index in range(len(mixture)))
    assert mixture.fingerprints.keys() - FacesMixture(stores).fingerprints.keys() == {"excluded"}
    path.write_text("v0\nv1\n")
    with pytest.raises(UserError, match="no picture with a face to train on"):
        FacesMixture(stores, exclude=path)


def test_statistics_as_text(stores):
    text = as_text(FacesMixture(stores).statistics(4))
    assert "c: 2 pictures of 40 px (2 duplicates left out), 6.5% of the batches, 4.0 passes; brightness" in text
    assert np.isfinite(FacesMixture(stores).statistics(4)[0]["brightness"])


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, -1.0)])
def test_weights_that_do_not_fit(stores, weights):
    with pytest.raises(UserError, match="expected 2 numbers above 0"):
        FacesMixture(stores[:2], weights=weights)
    assert isinstance(stores[0], Path)


def test_weights_change_what_batches_hold(stores):
    first, second = (Counter(index < 20 for index in drawn(FacesMixture(stores[:2], w), 1)[0]) for w in ((1, 1), ()))
    assert first[True] == 15 and second[True] == 20

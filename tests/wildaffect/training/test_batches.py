import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.errors import UserError
from wildaffect.training.batches import BatchPlan, sample_rng
from wildaffect.training.schedule import warmup_cosine


def plan(count=10, batch_size=4, most=4, rank=0, world=1, seed=0):
    return BatchPlan.derive(count=count, batch_size=batch_size, most=most, rank=rank, world=world, seed=seed)


@given(
    count=st.integers(1, 40),
    share=st.integers(1, 12),
    world=st.integers(1, 4),
    most=st.integers(1, 12),
    steps=st.integers(1, 6),
)
def test_ranks_and_micro_batches_make_up_the_global_batch(count, share, world, most, steps):
    alone = plan(count=count, batch_size=share * world, most=share * world)
    together = [plan(count=count, batch_size=share * world, most=most, rank=rank, world=world) for rank in range(world)]
    assert all(p.micro_batch_size <= most for p in together)
    for step in range(steps):
        expected = alone.global_batch(step)
        parts = [pair for p in together for micro in p.micro_batches(step, step + 1) for pair in micro]
        assert sorted(parts) == sorted(expected)


@given(count=st.integers(1, 50), batch_size=st.integers(1, 30))
def test_every_epoch_holds_every_sample_once(count, batch_size):
    p = plan(count=count, batch_size=batch_size, most=batch_size)
    pairs = [pair for step in range(-(-3 * count // batch_size)) for pair in p.global_batch(step)]
    for epoch in range(3):
        assert sorted(index for e, index in pairs if e == epoch) == list(range(count))[: 3 * count]


def test_resuming_gives_the_same_batches():
    p = plan()
    whole = list(p.micro_batches(0, 9))
    assert list(p.micro_batches(4, 9)) == whole[4:]


def test_different_seeds_and_epochs_differ():
    assert plan(count=100).global_batch(0) != plan(count=100, seed=1).global_batch(0)
    p = plan(count=100, batch_size=100, most=100)
    assert [i for _, i in p.global_batch(0)] != [i for _, i in p.global_batch(1)]
    assert sample_rng(0, 0, 1).random() != sample_rng(0, 1, 1).random()


def test_uneven_share_and_no_samples_are_refused():
    with pytest.raises(UserError, match="cannot be divided evenly among 3"):
        plan(world=3)
    with pytest.raises(UserError, match="no samples"):
        plan(count=0)


def test_warmup_cosine():
    lr = [warmup_cosine(s, total=100, warmup=10, peak=2.0) for s in range(101)]
    assert lr[0] == pytest.approx(0.2)
    assert max(lr) == lr[9] == lr[10] == 2.0
    assert lr[55] == pytest.approx(1.0)
    assert lr[100] == pytest.approx(0.0, abs=1e-12)
    assert np.all(np.diff(lr[10:]) <= 0)

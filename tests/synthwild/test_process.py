"""The emotion process and the plan of videos, without drawing anything."""

import numpy as np
import pytest

from synthwild.plan import SIZES, TEST, TRAIN, VALIDATION, plan
from synthwild.process import CENTRES, follow, random_temper, regions, simulate, smooth_noise, walk
from wildaffect.tasks import AUS, EXPRESSIONS


def course(seed: int, length: int = 400, visits: tuple[int, ...] = (0, 4, 1, 5, 6, 2, 3, 7)):
    rng = np.random.default_rng(seed)
    return simulate(rng, length, random_temper(rng), 18.0, visits)


def test_walk_visits_every_region() -> None:
    va = walk(np.random.default_rng(0), 400, 18.0, range(8))
    assert np.abs(va).max() < 1
    assert set(regions(va)) == set(range(8))


def test_regions_have_hysteresis() -> None:
    """On the border between two regions small noise must not flip the expression."""
    border = (CENTRES[0] + CENTRES[4]) / 2
    noise = np.random.default_rng(1).normal(0, 0.02, (200, 2))
    path = np.concatenate([CENTRES[:1], border + noise, CENTRES[4:5]])
    found = regions(path)
    assert (found[:-1] == 0).all()
    assert found[-1] == 4


@pytest.mark.parametrize(("name", "units"), [("Happiness", ("AU6", "AU12")), ("Surprise", ("AU1", "AU2", "AU26"))])
def test_action_units_follow_the_expression(name: str, units: tuple[str, ...]) -> None:
    runs = [course(seed) for seed in range(5)]
    expression = np.concatenate([run.expression for run in runs])
    au = np.concatenate([run.au for run in runs])
    here = expression == EXPRESSIONS.index(name)
    for unit in units:
        k = AUS.index(unit)
        assert au[here, k].mean() > 0.6
        assert au[expression == 0, k].mean() < 0.3


def test_annotated_valence_lags_the_face() -> None:
    """The annotation correlates best with the smile of a few frames before."""
    best = []
    for seed in range(6):
        run = course(seed)
        smile, valence = run.drawn[:, AUS.index("AU12")], run.valence_arousal[:, 0]
        best.append(np.argmax([np.corrcoef(smile[: 400 - lag], valence[lag:])[0, 1] for lag in range(9)]))
    assert 1 <= np.median(best) <= 6


def test_course_is_within_range_and_deterministic() -> None:
    one, two = course(3), course(3)
    assert np.array_equal(one.drawn, two.drawn)
    assert np.array_equal(one.valence_arousal, two.valence_arousal)
    assert np.abs(one.valence_arousal).max() <= 1
    assert one.drawn.min() >= 0
    assert set(np.unique(one.au)) == {0, 1}
    assert not np.array_equal(one.drawn, course(4).drawn)


def test_drawn_intensities_jitter_from_frame_to_frame() -> None:
    """A single frame must not give everything away: the drawn movement is noisier than the annotation."""
    run = course(5)
    active = run.au[:, AUS.index("AU4")] == 1
    assert np.abs(np.diff(run.drawn[active, AUS.index("AU4")])).mean() > 0.05


def test_follow_and_noise() -> None:
    step = follow(np.concatenate([np.zeros((1, 1)), np.ones((6, 1))]), 0.5)[:, 0]
    assert np.allclose(step, [0, 0.5, 0.75, 0.875, 0.9375, 0.96875, 0.984375])
    noise = smooth_noise(np.random.default_rng(0), 20000, 5)[:, 0]
    assert abs(noise.std() - 1) < 0.1
    assert abs(np.corrcoef(noise[:-5], noise[5:])[0, 1] - np.exp(-1)) < 0.1


@pytest.mark.parametrize(("size", "limit"), [("small", 8000), ("medium", 40_000)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sizes_keep_their_promise(size: str, limit: int, seed: int) -> None:
    videos = plan(size, seed)
    assert limit * 0.85 < sum(video.frames for video in videos) <= limit
    assert len([video for video in videos if TEST in video.subjects[0].splits.values()]) >= 16


def test_pool_is_unlabelled() -> None:
    videos = plan("pool", 0)
    assert len(videos) == SIZES["pool"].unlabelled
    assert {video.folder for video in videos} == {"unlabelled"}


def test_people_are_disjoint_between_splits_seeds_and_sizes() -> None:
    seen: set[tuple[int, ...]] = set()
    for size in ("tiny", "small", "pool"):
        for seed in (0, 1):
            people = [subject.identity for video in plan(size, seed) for subject in video.subjects]
            assert len(set(people)) == len(people)
            assert not seen & set(people)
            seen |= set(people)


def splits_of(videos: list) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for video in videos:
        for subject in video.subjects:
            found.setdefault(video.name, set()).update(subject.splits.values())
    return found


def test_only_the_leaky_form_leaks_between_tasks() -> None:
    assert all(len(splits) <= 1 for splits in splits_of(plan("small", 0)).values())
    leaky = plan("small", 0, leaky=True)
    crossed = [s.splits for video in leaky for s in video.subjects if {"va", "expr"} <= s.splits.keys()]
    assert any(splits["expr"] == TRAIN and splits["va"] == VALIDATION for splits in crossed)
    assert any(splits["expr"] == VALIDATION and splits["va"] == TRAIN for splits in crossed)
    pairs = [[s.splits.get("expr") for s in video.subjects] for video in leaky if len(video.subjects) == 2]
    assert any({TRAIN, VALIDATION} == set(pair) for pair in pairs)
    assert all(TEST not in splits or splits == {TEST} for splits in splits_of(leaky).values())


def test_names_are_unique_and_in_the_releases_styles() -> None:
    videos = plan("medium", 0)
    names = [name for video in videos for name in video.ids()]
    assert len(set(names)) == len(names)
    assert {video.extension for video in videos} == {".mp4", ".avi"}
    assert {video.rate for video in videos} >= {7.5, 29.97, 30.0}

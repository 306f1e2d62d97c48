"""Expressions under another prior."""

import json

import numpy as np
import pytest

from checkpoints.errors import UserError
from wildaffect.tasks import EXPRESSIONS
from wildaffect.tasks.priors import Prior, against_rest, estimated_prior, named_prior, tempered, under_prior

TRAINED = np.array([0.5, 0.1, 0.01, 0.04, 0.2, 0.1, 0.05, 0.0])


def drawn(prior, count, seed=0):
    """Classes drawn from a prior and the true posteriors under `TRAINED` of a Gaussian observation of each."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(len(prior), count, p=prior)
    seen = 1.5 * np.eye(len(prior))[classes] + rng.normal(size=(count, len(prior)))
    likelihood = np.exp(1.5 * seen)
    posterior = likelihood * TRAINED
    return classes, posterior / posterior.sum(1, keepdims=True)


def test_bayes_by_hand():
    found = under_prior(np.array([0.8, 0.2]), np.array([0.8, 0.2]), np.array([0.5, 0.5]))
    assert found == pytest.approx([0.5, 0.5])
    assert under_prior(np.array([0.3, 0.7]), np.array([0.6, 0.4]), np.array([0.6, 0.4])) == pytest.approx([0.3, 0.7])


def test_the_same_prior_changes_nothing_however_rare_a_class_is():
    rare = np.array([1 - 5e-5, 5e-5])
    answer = np.array([0.4, 0.6])
    assert under_prior(answer, rare, rare) == pytest.approx(answer)
    assert under_prior(answer, rare, tempered(rare, 0.0)) == pytest.approx(answer)
    assert tempered(rare, 1.0) == pytest.approx([0.5, 0.5])
    assert under_prior(answer, rare, np.array([1.0, 0.0])) == pytest.approx([1, 0])  # said to be impossible
    faces = np.tile(rare, (50, 1))  # as common as in training
    assert estimated_prior(faces, rare) == pytest.approx(rare, rel=1e-4)


def test_the_true_prior_raises_accuracy_and_em_goes_halfway_to_it():
    wanted = np.array([0.1, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.0])
    classes, posterior = drawn(wanted, 4000)
    before = (posterior.argmax(1) == classes).mean()
    after = (under_prior(posterior, TRAINED, wanted).argmax(1) == classes).mean()
    assert after > before + 0.02
    found = estimated_prior(posterior, TRAINED)
    assert (found - TRAINED) @ (wanted - TRAINED) > 0
    assert found.sum() == pytest.approx(1)
    assert (under_prior(posterior, TRAINED, found).argmax(1) == classes).mean() > before + 0.01


def test_soft_votes_do_not_carry_the_estimate_away():
    """Raters disagree: every face has some votes for every class. Plain EM ends at accuracy .61 here."""
    classes, posterior = drawn(TRAINED, 4000)
    votes = 0.9 * posterior + 0.1 * np.array([0.2, 0.15, 0.05, 0.1, 0.15, 0.15, 0.2, 0.0])
    before = (votes.argmax(1) == classes).mean()
    after = (under_prior(votes, TRAINED, estimated_prior(votes, TRAINED)).argmax(1) == classes).mean()
    assert after > before - 0.01


def test_without_frames_the_estimate_is_the_trained_prior():
    assert estimated_prior(np.zeros((0, 8)), TRAINED) == pytest.approx(TRAINED)


def test_a_class_that_was_not_trained_stays_unlikely():
    found = under_prior(np.full(8, 0.125), TRAINED, tempered(TRAINED, 1.0))
    assert found[7] <= 0.125 and np.isfinite(found).all()
    assert tempered(TRAINED, 0.5)[7] == 0


def test_tempering_goes_from_trained_to_uniform():
    assert tempered(TRAINED, 0.0) == pytest.approx(TRAINED)
    assert tempered(TRAINED, 1.0) == pytest.approx([1 / 7] * 7 + [0])


def test_a_person_who_always_looks_sad_is_neutral_at_rest():
    rest = np.log([0.7, 0.02, 0.01, 0.02, 0.05, 0.15, 0.04, 0.01])
    sad = np.array([0.2, 0.02, 0.01, 0.02, 0.02, 0.7, 0.02, 0.01])
    happy = np.array([0.05, 0.01, 0.01, 0.01, 0.8, 0.1, 0.01, 0.01])
    clip = np.stack([sad] * 8 + [happy] * 3).astype(np.float32)
    seen = np.ones(11, bool)
    found = against_rest(clip, seen, rest)
    assert found[:8].argmax(1).tolist() == [0] * 8
    assert found[8:].argmax(1).tolist() == [4] * 3
    assert found.sum(1) == pytest.approx(1, abs=1e-5)
    assert (against_rest(clip, ~seen, rest) == clip).all()


def test_names_and_files(tmp_path):
    stated = tempered(TRAINED, 0.5)
    assert named_prior("trained", TRAINED, stated) is TRAINED
    assert named_prior("stated", TRAINED, stated) is stated
    assert named_prior("uniform", TRAINED, stated)[:7] == pytest.approx(1 / 7)
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"Neutral": 3, "Fear": 1}))
    for form in (path, str(path)):
        assert dict(zip(EXPRESSIONS, named_prior(form, TRAINED, stated), strict=True))["Fear"] == 0.25
    wrong = [{"neutral": 1}, {"Neutral": -1}, {"Neutral": True}, {"Neutral": 0}, {"Other": 1}, {"Fear": "much"}]
    for bad in (*wrong, [1], {}):
        path.write_text(json.dumps(bad))
        with pytest.raises(UserError, match=r"p\.json"):
            named_prior(str(path), TRAINED, stated)
    with pytest.raises(UserError, match="--prior often"):
        named_prior("often", TRAINED, stated)


def test_a_clip_is_adapted_as_asked():
    prior = Prior(tuple(TRAINED), tuple(tempered(TRAINED, 0.4)), tuple(np.log(np.maximum(TRAINED, 1e-3))))
    _, posterior = drawn(np.array([0.1, 0.6, 0.1, 0.05, 0.05, 0.05, 0.05, 0.0]), 500, seed=1)
    seen = np.ones(500, bool)
    stated = prior.restated(posterior)
    assert (prior.adapted(stated, seen, "none", 25) == stated).all()
    assert prior.adapted(stated, seen, "clip", 25)[:, 1].mean() > stated[:, 1].mean() + 0.05


@pytest.mark.parametrize("how", ["person", "clip"])
def test_nobody_is_adapted_from_less_than_a_second(how):
    """The median over a picture is the picture: its answer would be the same for every face."""
    prior = Prior(tuple(TRAINED), tuple(TRAINED), tuple(np.log(np.maximum(TRAINED, 1e-3))))
    _, posterior = drawn(np.array([0.1, 0.6, 0.1, 0.05, 0.05, 0.05, 0.05, 0.0]), 100)
    for count, rate, changed in ((1, 30, False), (24, 25, False), (25, 25, True), (9, 1, False), (10, 1, True)):
        seen = np.arange(100) < count
        assert (prior.adapted(posterior, seen, how, rate) != posterior).any() == changed

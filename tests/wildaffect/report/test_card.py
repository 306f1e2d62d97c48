import json

import pytest

from wildaffect.report.card import CARD, RENDERED, SYNTHETIC, failures, write_card, write_product_card

ENCODER = {
    "kind": "encoder",
    "encoder": {"architecture": "vit_base_patch16_224", "image_size": 224, "pooling": "mean"},
    "provenance": {
        "stage": "finetune",
        "synthetic": False,
        "unlabelled_videos": ["a", "b"],
        "labelled_videos": {"expr": ["c", "d", "e"]},
        "chosen_on": {"expr": ["f", "g"]},
    },
    "scores": {"macro_f1": 0.4567, "frames": 1200, "classes": ["Neutral"] * 8},
}
HEAD = {
    "kind": "head",
    "task": "joint",
    "recipe": "ours",
    "architecture": {"window": 256},
    "inputs": [{"view": "full"}, {"view": "eyes_mouth"}],
    "trained_on": ["a", "b"],
    "encoder_trained_on": {"expr": ["a"]},
    "encoder_chosen_on": {"expr": ["c"]},
    "record": {
        "validation": {
            "va": {"score": 0.51, "chance": 0.0, "videos": 7},
            "expr": {"score": 0.3, "chance": 0.05, "videos": 7},
        },
        "scored_on": ["d", "e_left"],
        "synthetic": True,
    },
}


def card_of(tmp_path, header) -> str:
    (tmp_path / "config.json").write_text(json.dumps(header))
    write_product_card(tmp_path)
    return (tmp_path / CARD).read_text()


def test_an_encoders_card_says_what_its_header_records(tmp_path):
    text = card_of(tmp_path, ENCODER)
    assert "vit_base_patch16_224 at 224 pixels, fine-tuned on labels" in text
    assert "2 videos or pictures, without labels" in text and "Labels of 3 videos or pictures: expression." in text
    assert "Labels of 2 videos or pictures chose which state of it was kept: expression." in text
    assert "0.457" not in text and "None on videos used neither for training nor for" in text
    assert "Must not be used for" in text and "Known failures" in text and SYNTHETIC not in text
    origin = {**ENCODER["provenance"], "synthetic_labels": ["expr"]}
    text = card_of(tmp_path, {**ENCODER, "provenance": origin})
    assert "Labels of 3 videos or pictures of synthetic faces: expression." in text


@pytest.mark.parametrize("stage, word", [("pretrain", "masked autoencoder"), ("timm", "imported")])
def test_an_encoder_without_labels_has_no_scores(tmp_path, stage, word):
    header = {**ENCODER, "provenance": {"stage": stage, "synthetic": True}, "scores": None}
    text = card_of(tmp_path, header)
    assert word in text and "None on videos used neither for training nor for" in text and SYNTHETIC in text
    assert "Nothing recorded" in text  # about the data


def test_a_heads_card_names_every_task_it_was_scored_on(tmp_path):
    text = card_of(tmp_path, HEAD)
    assert "valence and arousal and expression and action units, recipe ours" in text
    assert "view: full and eyes_mouth" in text and "windows of 256 frame" in text and SYNTHETIC in text
    assert "| va | 0.510 | 0.000 | 7 videos used neither for training" in text and "| expr | 0.300 | 0.050 |" in text
    assert "| au |" not in text and "Labels of 2 videos taught or chose its encoder: expression" in text


def test_a_heads_card_says_what_it_learnt_from_and_withholds(tmp_path):
    record = {**HEAD["record"], "synthetic": False, "labels_are": "derived"}
    text = card_of(tmp_path, {**HEAD, "task": "va", "record": record})
    assert "taught and chose it: derived (learnt from values that a published rule computes" in text
    assert (
        "| va | 0.510 | 0.000 | 7 videos used neither for training nor for selection, against derived labels |" in text
    )
    assert SYNTHETIC not in text and "Withheld" not in text
    scores = {"au": {"score": 0.44, "chance": 0.2, "videos": 1200}}
    record = {**HEAD["record"], "labels_are": "synthetic", "faces": "rendered", "validation": scores}
    text = card_of(tmp_path, {**HEAD, "task": "au", "record": record, "withheld": ["AU2", "AU6"]})
    assert RENDERED in text and SYNTHETIC not in text and "could not be checked: AU2, AU6." in text
    assert (
        "| 1,200 videos used neither" in text and "against synthetic labels, over the withheld action units too" in text
    )


def test_further_lines_are_no_empty_scores(tmp_path):
    write_card(tmp_path / CARD, name="n", what="w", data=[], scores=[], failures=[], remarks=["AUC .9", "| a |\n|---|"])
    text = (tmp_path / CARD).read_text()
    assert "- AUC .9\n\n| a |\n|---|\n\n" in text and "None on videos" not in text


@pytest.mark.parametrize("scored", [[], ["b"], ["a_left", "d"], ["c", "d"], ["video45_2"]])
def test_scores_on_what_taught_or_chose_are_not_shown(tmp_path, scored):
    """Nor are those on the held-out videos, nor scores that do not say what they are of."""
    record = HEAD["record"] | {"held_out": {"va": {"score": 0.2, "chance": 0.0, "videos": 3}}, "scored_on": scored}
    text = card_of(tmp_path, {**HEAD, "trained_on": ["a", "b", "video45_1"], "record": record})
    assert "None on videos used neither for training nor for" in text and "0.510" not in text and "0.200" not in text


def test_the_template_takes_what_it_is_given(tmp_path):
    write_card(tmp_path / CARD, name="n", what="w", data=["d"], scores=[("au", None, None, "s")], failures=["f"])
    text = (tmp_path / CARD).read_text()
    assert "| au | – | – | s |" in text and "- d" in text and "- f" in text


def test_failures_are_those_of_the_heads():
    stills = failures(["expr", "au"], withheld=["AU15", "AU23", "AU24"], window=1)
    assert stills[1] == "Rare expressions (fear, disgust): few training faces and many misses."
    assert "frame is judged by itself" in stills[3] and "window" not in " ".join(stills)
    assert "Not known: how the scores differ by skin tone" in stills[-1]
    video = failures(["expr", "au"], withheld=["AU15"], window=64)
    assert "expressions (fear, disgust) and rare action units (AU23, AU24)" in video[1]
    assert "length of a window" in video[3]
    assert not any("Rare" in line for line in failures(["va"]))

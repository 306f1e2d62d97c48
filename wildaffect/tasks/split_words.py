"""The words for splits: what releases call their folders, and what tables and data sets write in a cell."""

from __future__ import annotations

TRAIN, VALIDATION, TEST = "Train_Set", "Validation_Set", "Test_Set"

NAMES = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
"""What the tables of this project write."""
WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
    **{"publictest": VALIDATION, "privatetest": TEST},  # FER2013
}


def split_of_word(word: str) -> str | None:
    """The split that a word names (`Train_Set`, `val`, `dev`, ...), in any letter case; None if it names none."""
    return WORDS.get(word.strip().lower().replace("-", "_").removesuffix("_set"))


def split_name(word: str) -> str | None:
    """The split that a word names, as this project's tables write it: train, validation or test; None if none."""
    found = split_of_word(word)
    return NAMES[found] if found else None

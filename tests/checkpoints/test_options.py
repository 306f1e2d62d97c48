from dataclasses import dataclass

import pytest
import tyro

from checkpoints.errors import guarded
from checkpoints.options import STRICT


@dataclass
class Config:
    seed: int = 0
    lr: float = 0.1
    scale: tuple[float, float] = (0.2, 1.0)
    limit: int | None = None


@pytest.mark.parametrize(
    "words",
    [
        *(["--seed", text] for text in ("٣", "３", "1_000", "1.5", " 5", "0x10", "²", "9" * 30)),
        *(["--lr", text] for text in ("nan", "-inf", "Infinity", "1e999", "0_1", "٠.1", "1,5", "")),
        *(["--scale", "0.5", "１"], ["--limit", "1_0"]),
    ],
)
def test_numbers_are_ascii_decimals(words):
    with pytest.raises(SystemExit) as stop:
        guarded(lambda: tyro.cli(Config, args=words))
    assert stop.value.code == 2


def test_the_message_names_the_option_and_what_was_found(capsys):
    with pytest.raises(SystemExit):
        guarded(lambda: tyro.cli(Config, args=["--seed", "٣"]))
    said = capsys.readouterr().err
    assert "--seed" in said and "expected a whole number, found '٣'" in said


def test_usual_numbers_are_read():
    words = ["--seed", "-3", "--lr", "1e-4", "--scale", "0", ".5", "--limit", "7"]
    with STRICT:
        assert tyro.cli(Config, args=words) == Config(-3, 1e-4, (0.0, 0.5), 7)
        assert tyro.cli(Config, args=["--lr", "1", "--limit", "None"]) == Config(lr=1.0)

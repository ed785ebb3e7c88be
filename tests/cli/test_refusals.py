"""What is typed wrong is refused in words: two regimes at once, folders that are not there, values of another
kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Typed = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "train --frozen --lora PLACE/music",
            "--frozen and --lora are two ways to train, and a run takes one",
        ),
        (
            "train --lora PLACE/music --frozen --out NOWHERE",
            "--frozen and --lora are two ways to train, and a run takes one",
        ),
        ("train PLACE/music", "train needs a DATASET and one of --frozen, --lora"),
        (
            "train --frozen PLACE/music --set training.epochs=ten",
            'training.epochs must be a whole number, got "ten"',
        ),
        (
            "train --frozen PLACE/music --set training.head_lr=fast",
            'training.head_lr must be a number, got "fast"',
        ),
        (
            "train --frozen PLACE/music --set head.standardise=1",
            "head.standardise must be true or false, got 1",
        ),
        ("train --resume NOWHERE", "there is no folder NOWHERE"),
        ("evaluate NOWHERE", "there is no folder NOWHERE"),
        ("report NOWHERE", "there is no file or folder NOWHERE"),
        ("calibrate NOWHERE", "there is no file or folder NOWHERE"),
        ("compare NOWHERE PLACE/run", "there is no file or folder NOWHERE"),
        ("ensemble NOWHERE PLACE/run --out NOWHERE-2", "there is no file or folder NOWHERE"),
        ("predict NOWHERE PLACE/music", "there is no file or folder NOWHERE"),
        ("timeline NOWHERE song.wav", "there is no file or folder NOWHERE"),
        ("robustness PLACE/music --model NOWHERE", "there is no folder NOWHERE"),
        ("models pack NOWHERE --out NOWHERE-2", "there is no folder NOWHERE"),
        ("pretrain --resume NOWHERE", "there is no folder NOWHERE"),
        ("extract NOWHERE --watch", "there is no folder NOWHERE"),
        ("extract NOWHERE", "there is no dataset NOWHERE"),
        ("data check NOWHERE", "there is no dataset NOWHERE"),
        ("cache info NOWHERE", "there is no folder NOWHERE"),
    ],
)
def test_one_line_that_says_what_is_wrong(
    typed: Typed, place: Path, tmp_path: Path, command: str, said: str
) -> None:
    nowhere = str(tmp_path / "nowhere")
    status, out, error = typed(
        *(word.replace("PLACE", str(place)).replace("NOWHERE", nowhere) for word in command.split())
    )
    assert (status, out, error.count("\n")) == (2, "", 1), error
    assert said.replace("NOWHERE", nowhere) in error
    assert not (tmp_path / "nowhere").exists()

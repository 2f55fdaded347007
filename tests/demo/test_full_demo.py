"""The settings of the full demo, and when `make fit` takes them."""

import subprocess
from pathlib import Path

import pytest

from trainer.settings import differences, load_settings

REPOSITORY = Path(__file__).parents[2]
SETTINGS = "demo/configs/trainer-full.yaml"


def test_the_full_demo_differs_from_the_quick_one_in_its_epochs_alone() -> None:
    full = load_settings("demo", file=REPOSITORY / SETTINGS)
    assert differences(full, load_settings("demo")) == {"schedule.stage2_epoch": 24, "optimiser.epochs": 32}


@pytest.mark.parametrize(
    ("words", "taken"),
    [((), False), (("SCENES=120",), True), (("SCENES=12",), False), (("SCENES=120", "DATASET=nuscenes"), False)],
)
def test_more_streets_than_in_the_quick_demo_take_these_settings(words: tuple[str, ...], taken: bool) -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "fit", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    (command,) = [line for line in printed.splitlines() if "/trainer fit " in line]
    assert (f'--config "{SETTINGS}"' in command) is taken

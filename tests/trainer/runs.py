"""Short trainings by the `trainer` command, in the process of the test."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

SMALL = ("networks.voxel_m=1.0", "networks.image_weights=null", "stream.images=2", "stream.hold_out=3")
SMALL += ("optimiser.kind=sgd", "optimiser.lr=0.01", "optimiser.weight_decay=0.0001", "optimiser.epochs=4")
SMALL += ("schedule.stage2_epoch=2", "checkpoint_minutes=0.0001")
"""Settings of short trainings; of the ten samples of the toy cache they train on eight, one in each step."""


def overrides(*more: str) -> list[str]:
    """Return the options for the settings of a short training, and `more` of them."""
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


def run_cli(*arguments: object, exit_code: int = 0) -> Result:
    """Run the `trainer` command in this process, and check its exit code."""
    from trainer.cli import main

    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == exit_code, done.stderr or done.exception
    return done


def history(folder: Path) -> list[dict]:
    """Return the loss curve of a run."""
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]

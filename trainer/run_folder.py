"""The folder of a run: what it is (run.json), its loss curve (history.jsonl), checkpoints, TensorBoard's files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from cache_schemas.taxonomy import Taxonomy
from trainer.errors import RunFolderError
from trainer.settings import RunSettings


class RunRecord(BaseModel):
    """What a run is: its settings, the cache it learns from, and the meaning of its labels.

    `content` digests the fingerprints of all that the run reads; `teacher_widths` are the widths of frozen features.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: RunSettings
    dataset: str
    cache: str
    content: str
    taxonomy: Taxonomy
    teacher_widths: dict[str, int]
    software: dict[str, str]


class RunFolder:
    """A folder that holds one run."""

    def __init__(self, path: Path) -> None:
        """Point at the folder; nothing is read or written yet."""
        self.path = path
        self.tensorboard = path / "tensorboard"
        self._history = path / "history.jsonl"

    def refuse_if_occupied(self) -> None:
        """Make sure that a new run can start here.

        Raises:
            RunFolderError: if the folder holds a run already.
        """
        if (self.path / "run.json").exists():
            raise RunFolderError(f"{self.path}: holds a run; go on with --resume, or give --out another folder")

    def start(self, record: RunRecord) -> None:
        """Make the folder for a new run.

        Raises:
            RunFolderError: if it holds a run already, or cannot be written.
        """
        self.refuse_if_occupied()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "run.json").write_text(record.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}); give another folder") from None

    def record(self) -> RunRecord:
        """Return what the run is.

        Raises:
            RunFolderError: if the folder holds no run, or a damaged one.
        """
        file = self.path / "run.json"
        try:
            return RunRecord.model_validate_json(file.read_text())
        except OSError:
            raise RunFolderError(
                f"{self.path}: no run here; start one with `trainer fit CACHE --out {self.path}`"
            ) from None
        except ValidationError as error:
            place = ".".join(str(step) for step in error.errors()[0]["loc"])
            raise RunFolderError(f"{file}: {place}: {error.errors()[0]['msg']}; start the run anew") from None

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint; it is there as a whole, or the one before it is.

        Raises:
            RunFolderError: if the folder cannot be written; the checkpoint before it is kept.
        """
        part = self.path / f".{name}.part"
        try:
            torch.save(state, part)
            part.replace(self._checkpoint(name))
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise RunFolderError(
                f"{self._checkpoint(name)}: cannot be written ({error}); make room, then --resume"
            ) from None

    def load(self, name: str) -> dict[str, Any]:
        """Return a checkpoint: tensors and plain values, nothing that can run.

        Raises:
            RunFolderError: if there is none, or it cannot be read.
        """
        file = self._checkpoint(name)
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise RunFolderError(f"{file}: no such checkpoint; the run has not come far enough, --resume it") from None
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            other = "best" if name == "last" else "last"
            raise RunFolderError(f"{file}: not a checkpoint ({reason}); remove it, and use the {other} one") from None
        return state

    def has(self, name: str) -> bool:
        """Tell whether there is a checkpoint of that name."""
        return self._checkpoint(name).exists()

    def add_history(self, rows: list[dict[str, Any]]) -> None:
        """Append steps to the loss curve."""
        with self._history.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def cut_history(self, steps: int) -> None:
        """Forget the loss curve from step `steps` on: these steps will be made again."""
        if self._history.exists():
            kept = [line for line in self._history.read_text().splitlines() if _step(line) < steps]
            self._history.write_text("".join(f"{line}\n" for line in kept))

    def history(self) -> list[dict[str, Any]]:
        """Return the loss curve, a row a step."""
        return [json.loads(line) for line in self._history.read_text().splitlines()] if self._history.exists() else []

    def _checkpoint(self, name: str) -> Path:
        return self.path / f"{name}.pt"


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")


@dataclass
class Standing:
    """Where a run stands: `step` steps are done in all; `best` is the highest score so far."""

    step: int = 0
    best: float = -1.0

"""The folder of a run: its record (run.json), loss curve (history.jsonl), checkpoints, and TensorBoard's files."""

import json
from pathlib import Path
from typing import Any

import torch

from trainer.errors import RunFolderError
from trainer.run_record import RunRecord


class RunFolder:
    """A folder that holds one run."""

    def __init__(self, path: Path) -> None:
        """Point at the folder; nothing is read or written yet."""
        self.path = path
        self.tensorboard = path / "tensorboard"
        self._history = path / "history.jsonl"

    def refuse_if_occupied(self) -> None:
        """Check that a new run can start in this folder.

        Raises:
            RunFolderError: if the folder holds a run.
        """
        if (self.path / "run.json").exists():
            raise RunFolderError(
                f"{self.path}: holds a run; give --resume to continue it, or give --out another folder"
            )

    def start(self, record: RunRecord) -> None:
        """Create the folder for a new run and write its record.

        Raises:
            RunFolderError: if it holds a run, or cannot be written.
        """
        self.refuse_if_occupied()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_record(record)
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}); give another folder") from None

    def go_on(self, record: RunRecord) -> None:
        """Check that the folder's run can go on with `record`, and replace its record by this one.

        Raises:
            RunFolderError: if it holds no run or another one, or cannot be written.
        """
        self.record().refuse_other(record, self.path)
        try:
            self._write_record(record)
        except OSError as error:
            raise self.unwritable(self.path / "run.json", error) from None

    def record(self) -> RunRecord:
        """Return the record of the run.

        Raises:
            RunFolderError: if the folder holds no run, or its record is damaged or of another version.
        """
        file = self.path / "run.json"
        try:
            text = file.read_text(encoding="utf-8")
        except OSError:
            raise RunFolderError(
                f"{self.path}: no run here; start one with `trainer fit CACHE --out {self.path}`"
            ) from None
        return RunRecord.parse(text, file)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write the checkpoint `<name>.pt`; a failed or interrupted write keeps the previous one.

        Raises:
            RunFolderError: if the folder cannot be written.
        """
        part = self.path / f".{name}.part"
        try:
            torch.save(state, part)
            part.replace(self._checkpoint(name))
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise RunFolderError(
                f"{self._checkpoint(name)}: cannot be written ({error}); free some space, then rerun with --resume"
            ) from None

    def load(self, name: str) -> dict[str, Any]:
        """Return a checkpoint, on the CPU. Only tensors and plain values are read, no pickled code.

        Raises:
            RunFolderError: if there is none of that name, or it cannot be read.
        """
        file = self._checkpoint(name)
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise RunFolderError(
                f"{file}: no such checkpoint; the run has not finished an epoch, continue it with --resume"
            ) from None
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            other = "best" if name == "last" else "last"
            raise RunFolderError(
                f"{file}: not a checkpoint ({reason}); remove it and use the checkpoint {other!r}"
            ) from None
        return state

    def has(self, name: str) -> bool:
        """Return whether there is a checkpoint of that name."""
        return self._checkpoint(name).exists()

    def add_history(self, rows: list[dict[str, Any]]) -> None:
        """Append steps to the loss curve.

        Raises:
            RunFolderError: if it cannot be written.
        """
        try:
            with self._history.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        except OSError as error:
            raise self.unwritable(self._history, error) from None

    def cut_history(self, steps: int) -> None:
        """Keep only the first `steps` steps of the loss curve: a resumed run repeats the later ones.

        The curve is replaced as a whole, so that a full disk does not lose the steps before.

        Raises:
            RunFolderError: if it cannot be written.
        """
        part = self._history.with_name(f".{self._history.name}.part")
        try:
            if self._history.exists():
                kept = [line for line in self._history.read_text().splitlines() if _step_number(line) < steps]
                part.write_text("".join(f"{line}\n" for line in kept))
                part.replace(self._history)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise self.unwritable(self._history, error) from None

    def unwritable(self, file: Path, error: OSError) -> RunFolderError:
        """Return the error for a file of the run that cannot be written."""
        return RunFolderError(
            f"{file}: cannot be written ({error.strerror or error}); free some space, or make it writable, then rerun "
            "with --resume"
        )

    def _write_record(self, record: RunRecord) -> None:
        part = self.path / ".run.json.part"
        part.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        part.replace(self.path / "run.json")

    def _checkpoint(self, name: str) -> Path:
        return self.path / f"{name}.pt"


def _step_number(line: str) -> float:
    """Return the step of a line of the loss curve; a line that was cut short is later than all steps."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")

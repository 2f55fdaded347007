"""The folder of a run: its record (run.json), loss curve (history.jsonl), checkpoints, and TensorBoard's files."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from cache_schemas.taxonomy import Taxonomy
from trainer.errors import RunFolderError
from trainer.settings import RunSettings, renamed_keys


class RunRecord(BaseModel):
    """What determines a run, as run.json holds it.

    Attributes:
        settings: of the run.
        dataset: the data set of the cache.
        cache: the URL or path of the cache.
        content: a digest of the fingerprints of all groups that the run reads.
        taxonomy: the classes.
        teacher_widths: by teacher, the number of channels of its frozen features.
        software: versions of the packages, by name.
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
            (self.path / "run.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}); give another folder") from None

    def check_same_run(self, record: RunRecord) -> None:
        """Check that the folder holds a run with the settings and the cache contents of `record`.

        Raises:
            RunFolderError: if it holds no run, or another one.
        """
        before = self.record()
        for what, then, now in (
            ("settings", before.settings, record.settings),
            ("cache contents", before.content, record.content),
        ):
            if then != now:
                raise RunFolderError(
                    f"{self.path}: its run has other {what}; resume with the same ones, or give --out another folder"
                )

    def record(self) -> RunRecord:
        """Return the record of the run.

        Raises:
            RunFolderError: if the folder holds no run, or its record is damaged or of an earlier version.
        """
        file = self.path / "run.json"
        try:
            text = file.read_text(encoding="utf-8")
        except OSError:
            raise RunFolderError(
                f"{self.path}: no run here; start one with `trainer fit CACHE --out {self.path}`"
            ) from None
        try:
            return RunRecord.model_validate_json(text)
        except ValidationError as error:
            _refuse_renamed_keys(file, text)
            place = ".".join(str(step) for step in error.errors()[0]["loc"])
            raise RunFolderError(
                f"{file}: {place}: {error.errors()[0]['msg']}; start the run again in another folder"
            ) from None

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

    def _checkpoint(self, name: str) -> Path:
        return self.path / f"{name}.pt"


def _refuse_renamed_keys(file: Path, text: str) -> None:
    try:
        settings = json.loads(text)["settings"]
        renamed = renamed_keys(settings)
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    if renamed:
        names = ", ".join(f"{old!r} to {new!r}" for old, new in renamed.items())
        raise RunFolderError(
            f"{file}: written by an earlier version; rename the settings {names} in this file to use the run"
        ) from None


def _step_number(line: str) -> float:
    """Return the step of a line of the loss curve; a line that was cut short is later than all steps."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")

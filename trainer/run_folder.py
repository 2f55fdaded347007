"""The folder of a run: its record (run.json), loss curve (history.jsonl), checkpoints, and TensorBoard's files."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        self._history, self._scores = path / "history.jsonl", path / "scores.jsonl"

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

        What it started from stays.

        Raises:
            RunFolderError: if it holds no run or another one, or cannot be written.
        """
        before = self.record()
        before.refuse_other(record, self.path)
        start = {"absent_weights": before.absent_weights, "init": before.init}
        try:
            self._write_record(record.model_copy(update=start))
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder; a lock ends with its process. Some file systems have no locks.

        Raises:
            RunFolderError: if another training writes this run, or the folder cannot be written.
        """
        file = self.path / "run.lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}); give another folder") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                raise RunFolderError(
                    f"{self.path}: {holder} is training this run; wait for it to end, or give --out another folder"
                ) from None
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
            with suppress(OSError):  # a full disk; the name is only for messages
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield
        finally:
            os.close(descriptor)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write the checkpoint `<name>.pt`; a failed or interrupted write keeps the one of before.

        The last checkpoint of before stays as `previous.pt`.

        Raises:
            RunFolderError: if the folder cannot be written.
        """
        part, file = self.path / f".{name}.part", self._checkpoint(name)
        try:
            with part.open("wb") as opened:
                torch.save(state, opened)
                opened.flush()
                os.fsync(opened.fileno())
            if name == "last" and file.exists():
                file.replace(self._checkpoint("previous"))
            part.replace(file)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise RunFolderError(
                f"{file}: cannot be written ({reason}); free some space, then rerun with --resume"
            ) from None

    def load(self, name: str) -> dict[str, Any]:
        """Return a checkpoint, on the CPU. Only tensors and plain values are read, no pickled code.

        Raises:
            RunFolderError: if there is none of that name, or it cannot be read.
        """
        file = self._checkpoint(name)
        if not file.exists():
            names = ", ".join(self.checkpoints()) or "none, the run has not finished an epoch"
            raise RunFolderError(f"{file}: no such checkpoint (there is {names}); continue the run with --resume")
        try:
            return load_checkpoint(file)
        except RunFolderError as error:
            others = ", ".join(other for other in self.checkpoints() if other != name) or "none"
            raise RunFolderError(
                f"{error}; other checkpoints: {others}; --resume goes on from the latest good one"
            ) from None

    def load_latest(self) -> tuple[dict[str, Any], str] | None:
        """Return the last checkpoint, or the latest one that can be read, and a sentence on why ("" for the last).

        None if there is no checkpoint yet.

        Raises:
            RunFolderError: if there are some, and none can be read.
        """
        names = self.checkpoints()
        if not names:
            return None
        reason = f"{self._checkpoint('last')}: no such checkpoint"
        if "last" in names:
            try:
                return load_checkpoint(self._checkpoint("last")), ""
            except RunFolderError as error:
                reason = str(error)
        good: dict[str, dict[str, Any]] = {}
        for name in names:
            with suppress(RunFolderError):
                good[name] = load_checkpoint(self._checkpoint(name))
        if not good:
            raise RunFolderError(f"{reason}, and no other can be read; start a new run with --out another folder")
        latest = max(good, key=lambda name: int(good[name]["step"]))
        return good[latest], f"{reason}; going on from {latest}.pt, after step {good[latest]['step']}"

    def replace_last(self, state: dict[str, Any]) -> None:
        """Write the last checkpoint in place of one that is damaged or lost; `previous.pt` stays.

        Raises:
            RunFolderError: if the folder cannot be written.
        """
        self._checkpoint("last").unlink(missing_ok=True)
        self.save("last", state)

    def checkpoints(self) -> list[str]:
        """Return the names of the checkpoints."""
        return sorted(file.stem for file in self.path.glob("*.pt"))

    def add_history(self, rows: list[dict[str, Any]]) -> None:
        """Append steps to the loss curve.

        Raises:
            RunFolderError: if it cannot be written.
        """
        self._add(self._history, rows)

    def add_scores(self, row: dict[str, Any]) -> None:
        """Append scores of the held-out scenes, after a step, to scores.jsonl.

        Raises:
            RunFolderError: if it cannot be written.
        """
        self._add(self._scores, [row])

    def cut_history(self, steps: int) -> None:
        """Keep only the first `steps` steps of the loss curve, and scores after them: a resumed run repeats the others.

        Files are replaced as a whole, so that a full disk does not lose the steps before.

        Raises:
            RunFolderError: if they cannot be written.
        """
        for file in (self._history, self._scores):
            part = file.with_name(f".{file.name}.part")
            try:
                if file.exists():
                    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
                    part.write_text("".join(f"{line}\n" for line in lines if _step_number(line) < steps))
                    part.replace(file)
            except OSError as error:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
                raise self.unwritable(file, error) from None

    def _add(self, file: Path, rows: list[dict[str, Any]]) -> None:
        try:
            with file.open("a") as opened:
                opened.writelines(json.dumps(row) + "\n" for row in rows)
        except OSError as error:
            raise self.unwritable(file, error) from None

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


def load_checkpoint(file: Path) -> dict[str, Any]:
    """Return the checkpoint in a file, on the CPU. Only tensors and plain values are read, no pickled code.

    Raises:
        RunFolderError: if it cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunFolderError(f"{file}: not a checkpoint ({reason})") from None
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise RunFolderError(f"{file}: not a checkpoint (it has no model)")
    return state


def _step_number(line: str) -> float:
    """Return the step of a line of the loss curve; a line that was cut short is later than all steps."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")

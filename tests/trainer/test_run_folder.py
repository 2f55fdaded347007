"""The folder of a training run on a disk that fails."""

import errno
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.errors import RunFolderError
from trainer.run_folder import RunFolder
from trainer.training.monitor import open_monitor


@pytest.mark.parametrize("call", ["add", "cut"])
def test_a_full_disk_at_the_history_is_one_error_and_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder = RunFolder(tmp_path)
    folder.add_history([{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5}])
    before = (tmp_path / "history.jsonl").read_text()

    def full(self: Path, mode: str = "r", *_: Any, **__: Any) -> Any:
        if "w" in mode or "a" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return io.open(self, mode)  # noqa: UP020 - `Path.open` is what is replaced

    with monkeypatch.context() as patch, pytest.raises(RunFolderError, match=r"history\.jsonl: cannot be written \(No"):
        patch.setattr(Path, "open", full)
        folder.add_history([{"step": 2}]) if call == "add" else folder.cut_history(1)
    assert (tmp_path / "history.jsonl").read_text() == before
    folder.cut_history(1)
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_a_tensorboard_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    plan: Any = SimpleNamespace(ranks=SimpleNamespace(is_first=True))
    unused: Any = None
    refused = pytest.raises(RunFolderError, match=r"tensorboard: cannot be written \(File exists\)")
    with refused, open_monitor(RunFolder(tmp_path), unused, plan, 0, unused):
        pass

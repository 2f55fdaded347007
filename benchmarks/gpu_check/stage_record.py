"""What one stage measured: a JSON file, rewritten after every figure, so that an interrupted stage still counts."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class OutOfTimeError(Exception):
    """The stage has too little time left for its next part."""


def mark_stopped(file: Path, seconds: float) -> None:
    """Say in the record of a stage, whose process was ended, that its time was over."""
    if file.is_file():
        content = json.loads(file.read_text()) | {
            "state": f"stopped after {seconds:.0f} s",
            "seconds": round(seconds, 1),
        }
        file.write_text(json.dumps(content, indent=2) + "\n")


class StageRecord:
    """The JSON file `<folder>/<stage>.json`: state, seconds, and the figures by name."""

    def __init__(self, folder: Path, stage: str, seconds: float) -> None:
        """Start the record of a stage that may take `seconds`."""
        self.file = folder / f"{stage}.json"
        self._deadline = time.monotonic() + seconds
        self._start = time.monotonic()
        self._content: dict[str, Any] = {"stage": stage, "state": "running", "seconds": 0.0, "figures": {}}
        self._write()

    @property
    def left_s(self) -> float:
        """Seconds that the stage may still take."""
        return self._deadline - time.monotonic()

    def need(self, seconds: float, part: str) -> None:
        """Refuse to start a part that would not end in time.

        Raises:
            OutOfTimeError: naming the part.
        """
        if self.left_s < seconds:
            raise OutOfTimeError(f"{part} needs about {seconds:.0f} s, {self.left_s:.0f} s are left")

    def add(self, name: str, figures: Any) -> None:
        """Store JSON-ready figures under a name, print them, and write the file."""
        self._content["figures"][name] = figures
        self._write()
        print(f"{name}: {json.dumps(figures)}", flush=True)

    def end(self, state: str) -> None:
        """Write the final state: `done`, or why the stage stopped."""
        self._content["state"] = state
        self._write()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Store the error of a part that fails under the part's name; the stage continues with its next part."""
        try:
            yield
        except OutOfTimeError as error:
            self.add(f"{name}, skipped", str(error))
        except Exception as error:
            self.add(f"{name}, failed", f"{type(error).__name__}: {error}"[:2000])

    def _write(self) -> None:
        self._content["seconds"] = round(time.monotonic() - self._start, 1)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self._content, indent=2) + "\n")
        partial.replace(self.file)

"""Stop requests: Ctrl-C and SIGTERM end a run between two steps, so that all finished steps are kept."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME_REQUEST_SECONDS = 1.0
"""Signals within this time are one request: a terminal signals every process, and torchrun passes signals on."""


class StopRequest:
    """Whether the run has been asked to stop."""

    def __init__(self) -> None:
        """Start without a request."""
        self._since: float | None = None

    @property
    def requested(self) -> bool:
        """Whether the run should stop after the current step."""
        return self._since is not None

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        """Ask for a stop after the current step; a second request stops at once.

        Raises:
            KeyboardInterrupt: at a second request.
        """
        now = time.monotonic()
        if self._since is not None and now - self._since > SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt
        self._since = self._since or now


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Treat Ctrl-C and SIGTERM, which schedulers and `kill` send, as stop requests.

    This also holds in a shell script's background jobs, which start with Ctrl-C ignored. Outside the main thread, as in
    a worker of Ray Train, signals cannot be handled and there is never a request.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.handle_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

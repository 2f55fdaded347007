"""Stopping on request: between two steps, with all of them kept, whoever asks and however."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME_REQUEST_SECONDS = 1.0
"""A terminal tells all processes of a run, and a launcher such as torchrun passes on what it has been told."""


class Stop:
    """Whether somebody has asked the run to end."""

    def __init__(self) -> None:
        """Start unasked."""
        self._since: float | None = None

    @property
    def asked(self) -> bool:
        """Whether the run shall end after its present step."""
        return self._since is not None

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Ask for an end after the present step; asked again, end at once."""
        now = time.monotonic()
        if self._since is not None and now - self._since > SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt
        self._since = self._since or now


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Take Ctrl-C and SIGTERM, by which schedulers and `kill` end a run, for requests.

    Also where a shell has started the run with Ctrl-C ignored, as it does with a script's background jobs. Outside of
    the main thread (a worker of Ray Train) nobody can be heard.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_requests_to_the_parent(worker: int) -> None:
    """Let a process that reads ahead outlive Ctrl-C: its parent ends it after the step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

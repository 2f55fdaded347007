"""Stopping on request: a run that gets SIGTERM ends as if Ctrl-C had been pressed."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HOW_TO_RESUME = "sealed groups are kept; run the same command again to resume"
INTERRUPTED = 130
"""The exit code of a run that was told to stop."""

GRACE_SECONDS = 5.0
"""How long a run that is told to stop may take to unwind, while it is in a call that does not notice signals."""

_stop_requested = threading.Event()


@contextmanager
def stops_like_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM, which schedulers and `kill` send, as Ctrl-C.

    Schedulers send it to the processes of Ray too, and these may end first. So any error after the signal counts as
    part of the stop.
    """
    before = signal.getsignal(signal.SIGTERM)
    _stop_requested.clear()
    take_sigterm_for_ctrl_c()
    try:
        yield
    except Exception:
        if _stop_requested.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        if _may_set_handlers():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def stops_although_blocked(clean_up: Callable[[], None]) -> Iterator[None]:
    """Stop on request even while a library blocks: Ray waits half a minute for a raylet that got the same signal.

    Python runs signal handlers between two steps of the main thread only. But it writes the signal's number to a file
    at once, where another thread reads it. If the main thread then does not unwind, that thread calls `clean_up` and
    ends the process.
    """
    if not _may_set_handlers():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    ended = threading.Event()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_end_when_told, args=(reading, ended, clean_up), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(writing)  # ends the watcher's reading


@contextmanager
def children_ignore_sigterm() -> Iterator[None]:
    """Processes that are started here never get SIGTERM; this one is told, and ends them.

    Schedulers send it to all processes of a run. If Ray's raylet ended first, Ray's library would end this process at
    once with exit code 1: it does so when the connection to the object store breaks.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # children inherit this, and no handler
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_when_told(reading: int, ended: threading.Event, clean_up: Callable[[], None]) -> None:
    while number := os.read(reading, 1):
        if number[0] in (signal.SIGTERM, signal.SIGINT) and not ended.wait(GRACE_SECONDS):
            clean_up()
            print(f"interrupted; {HOW_TO_RESUME}", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)
    os.close(reading)


def take_sigterm_for_ctrl_c() -> None:
    """Install the handler. Call it again after a library such as Ray has installed its own."""
    if _may_set_handlers():
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    _stop_requested.set()
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(number, frame)
    else:  # a shell starts the background jobs of a script with Ctrl-C ignored
        raise KeyboardInterrupt


def _may_set_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()

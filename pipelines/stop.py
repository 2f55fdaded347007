"""Stopping on request: a run that gets SIGTERM ends as if Ctrl-C had been pressed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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

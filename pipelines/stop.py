"""Stopping on request: whoever ends a run, and however, it ends as by Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_told = threading.Event()


@contextmanager
def stops_like_ctrl_c() -> Iterator[None]:
    """Take SIGTERM, by which schedulers and `kill` end a run, for Ctrl-C.

    Schedulers send it to Ray's processes as well, which may be gone first: what fails from then on is part of the end.
    """
    before = signal.getsignal(signal.SIGTERM)
    _told.clear()
    take_sigterm_for_ctrl_c()
    try:
        yield
    except Exception:
        if _told.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        if _may_set_handlers():
            signal.signal(signal.SIGTERM, before)


def take_sigterm_for_ctrl_c() -> None:
    """Do so from now on: also after somebody else, such as Ray, has put a handler in place."""
    if _may_set_handlers():
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    _told.set()
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(number, frame)
    else:  # a shell starts background jobs of a script with Ctrl-C ignored
        raise KeyboardInterrupt


def _may_set_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()

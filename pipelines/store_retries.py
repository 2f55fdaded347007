"""Counts how often a process sends a request to an object store again. Only log messages of the clients show it."""

import logging
import threading
from functools import cache

from typing_extensions import override

ANNOUNCEMENTS = {
    "botocore.retryhandler": "Retry needed, action of",
    "botocore.retries.standard": "Retry needed, retrying",
    "s3fs": "Retryable error",
}
"""How the debug messages begin that announce another try, by logger: two retry modes of the AWS client, and s3fs."""


class _RetryCounter(logging.Filter):
    """Counts these messages. A message reaches the handlers of the process only if its level was enabled before."""

    def __init__(self) -> None:
        super().__init__()
        self._guard, self._count = threading.Lock(), 0
        self._levels: dict[str, int] = {}
        for name in ANNOUNCEMENTS:
            logger = logging.getLogger(name)
            self._levels[name] = logger.getEffectiveLevel()
            logger.setLevel(logging.DEBUG)
            logger.addFilter(self)

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith(ANNOUNCEMENTS[record.name]):
            with self._guard:
                self._count += 1
        return record.levelno >= self._levels[record.name]

    def take(self) -> int:
        with self._guard:
            taken, self._count = self._count, 0
        return taken


@cache
def _counter() -> _RetryCounter:
    return _RetryCounter()


def count_retries() -> None:
    """Count retries of this process from now on."""
    _counter()


def take_retries() -> int:
    """Return how many there were since the last call, or since counting began."""
    return _counter().take()

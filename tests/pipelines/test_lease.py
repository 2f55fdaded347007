"""The right to write a cache when clocks are wrong, or when a run has been followed by another without knowing it."""

import time
import uuid
from pathlib import Path

import pytest

from cache_schemas import lock
from cache_schemas.errors import CacheLockedError
from cache_schemas.location import file_system
from cache_schemas.lock import run_lock, writing

HOUR = 3600.0


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/cache"


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 1.2)
    return 1.2


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    really = time.time
    monkeypatch.setattr(lock.time, "time", lambda: really() + ahead)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_lease_that_is_renewed_holds_whatever_the_clock_says(
    url: str, short_lease: float, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    with run_lock(url):
        set_clock(monkeypatch, jump)
        for _ in range(3):
            with pytest.raises(CacheLockedError, match="is already writing"), run_lock(url):
                pass


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_lease_that_nobody_renews_lapses_whatever_the_clock_says(
    url: str, short_lease: float, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    fs, path = file_system(f"{url}/.run.lock")
    fs.pipe_file(path, b'{"holder": "a killed run", "renewed": %f}' % time.time())
    set_clock(monkeypatch, jump)
    start = time.monotonic()
    with run_lock(url):
        assert time.monotonic() - start < 2 * short_lease


def test_a_lock_file_that_is_no_lease_is_taken_over(url: str, short_lease: float) -> None:
    fs, path = file_system(f"{url}/.run.lock")
    fs.pipe_file(path, b"cut sh")
    with run_lock(url):
        pass


def test_a_run_that_was_followed_by_another_writes_no_more_and_does_not_take_the_lease_back(
    url: str, short_lease: float
) -> None:
    fs, path = file_system(f"{url}/.run.lock")
    with run_lock(url) as holder:
        with writing(url, holder):
            pass
        successor = b'{"holder": "the next run", "renewed": %f}' % time.time()
        fs.pipe_file(path, successor)
        with pytest.raises(CacheLockedError, match="the next run has taken over from run"), writing(url, holder):
            pass
        time.sleep(short_lease / 2)
        assert fs.cat_file(path) == successor
    assert fs.cat_file(path) == successor, "nor does it remove another's lease"


def test_a_worker_that_outlived_its_run_writes_no_more_once_the_next_has_begun(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    with run_lock(cache) as first, writing(cache, first):
        pass
    with writing(cache, first):
        pass
    with run_lock(cache) as second:
        with pytest.raises(CacheLockedError, match="has taken over"), writing(cache, first):
            pass
        with writing(cache, second):
            pass


def test_a_cache_reached_through_a_link_is_the_same_cache(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with run_lock(str(tmp_path / "link")), pytest.raises(CacheLockedError), run_lock(str(tmp_path / "real")):
        pass

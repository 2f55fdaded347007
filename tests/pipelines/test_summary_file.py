"""`summary.json` in a cache: written as part of a run, and read by a forecast, on a disk and in a store."""

import json
from pathlib import Path

import pytest

from cache_schemas.errors import CacheError, CacheLockedError
from cache_schemas.lock import run_lock
from cache_schemas.past_run import PastRun
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from pipelines.summary import RunSummary
from pipelines.summary_file import write_summary
from tests.toy_cache import create_toy_cache, toy_manifest


@pytest.fixture(params=["disk", "store"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the place of an empty cache."""
    url = str(tmp_path / "cache.zarr") if request.param == "disk" else f"memory://{tmp_path.name}/cache.zarr"
    create_toy_cache(url, toy_manifest(), embedding_size=5)
    return url


def summary(url: str) -> RunSummary:
    found = RunSummary(url, "toy", seconds=20.0, gpus=2.0, teacher_recipes={"sam": "r"})
    found.stage_seconds, found.stage_pictures = {"sam": 24.0, "clip": 6.0}, {"sam": 48, "clip": 60}
    return found


def test_a_summary_is_read_as_it_was_written_and_the_cache_is_sound(url: str) -> None:
    with run_lock(url) as holder:
        write_summary(summary(url), holder)
    past = PastRun.of(url)
    assert past is not None
    assert past.seconds_per_picture("sam", "r") == 0.5
    assert past.seconds_per_picture("sam", "other settings") is None
    assert past.wall_over_teachers == pytest.approx(20 / 30)
    assert [str(problem) for problem in validate(*Cache.open(url))] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gpus", "NaN"),
        ("finished", '"2026\\u001b[31m"'),
        ("stage_seconds", '{"sam": Infinity}'),
        ("stage_seconds", '{"sam": -1}'),
        ("stage_pictures", '{"sam": 1' + 400 * "0" + "}"),
    ],
)
def test_a_summary_that_no_run_has_written_is_none(tmp_path: Path, field: str, value: str) -> None:
    url = str(tmp_path / "cache.zarr")
    create_toy_cache(url, toy_manifest(), embedding_size=5)
    fields = {name: json.dumps(own) for name, own in (summary(url).to_dict() | {"finished": "now"}).items()}
    for own, expected in ((fields, True), (fields | {field: value}, False)):
        (tmp_path / "cache.zarr/summary.json").write_text(
            "{" + ", ".join(f'"{name}": {text}' for name, text in own.items()) + "}"
        )
        assert (PastRun.of(url) is not None) == expected


def test_a_run_that_was_followed_writes_nothing(url: str) -> None:
    with run_lock(url), pytest.raises(CacheLockedError, match="taken over"):
        write_summary(summary(url), "a run that was killed")
    assert PastRun.of(url) is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    url, other = str(tmp_path / "cache.zarr"), tmp_path / "other.json"
    create_toy_cache(url, toy_manifest(), embedding_size=5)
    other.write_text("mine")
    (Path(url) / "summary.json").symlink_to(other)
    with run_lock(url) as holder, pytest.raises(CacheError, match="link"):
        write_summary(summary(url), holder)
    assert other.read_text() == "mine"


def test_efficiency_is_the_share_of_the_gpus_time_in_which_teachers_work() -> None:
    assert summary("toy").efficiency == 30 / (20 * 2)
    assert RunSummary("toy", "toy", seconds=20.0).efficiency is None
    assert summary("toy").pictures_per_second == {"sam": 2.0, "clip": 10.0}

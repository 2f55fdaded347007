"""Places of caches: one place has one spelling, and a place that cannot hold a cache is one error."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cache_schemas.errors import CacheError, CacheLockedError
from cache_schemas.location import canonical, is_url
from cache_schemas.lock import run_lock
from cache_schemas.store import Cache
from labelgen.cli import main
from tests.cache_schemas.editing import problems_of


@pytest.fixture
def spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ways to name the folder `real/cache`."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    full = f"{tmp_path}/real/cache"
    plain = [full, f"{full}/", f"{full}//", "real/cache", "./real/../real/cache", "link/cache", f"/{full}"]
    return [*plain, f"file://{full}", f"file://{full}/", f"local://{full}", f"file://{tmp_path}/link/cache"]


def test_a_local_place_has_one_spelling(spellings: list[str]) -> None:
    assert {canonical(place) for place in spellings} == {spellings[0]}
    assert not any(map(is_url, spellings))


def test_a_url_has_one_spelling() -> None:
    places = ["s3://bucket/a.zarr", "s3://bucket/a.zarr/", "s3a://bucket/a.zarr", "s3a://bucket/a.zarr//"]
    assert {canonical(place) for place in places} == {places[0]}


def test_two_runs_never_hold_one_place_however_they_spell_it(spellings: list[str]) -> None:
    for one in spellings:
        for other in spellings:
            with run_lock(one), pytest.raises(CacheLockedError, match="is already writing"), run_lock(other):
                pass


def test_a_cache_is_the_same_however_it_is_spelled(
    spellings: list[str], write_sound_cache: Callable[[str], Cache]
) -> None:
    write_sound_cache(spellings[7])
    for place in spellings:
        assert problems_of(place) == []
        assert CliRunner().invoke(main, ["inspect", place]).exit_code == 0


@pytest.mark.parametrize("name", ["with space", "a::b", "star*", "[x]", "q?", "%20", "ünï", "#1", "x;y", "zip::x"])
def test_a_folder_of_any_name_can_hold_a_cache(
    tmp_path: Path, name: str, write_sound_cache: Callable[[str], Cache]
) -> None:
    place = str(tmp_path / name)
    cache = write_sound_cache(place)
    with run_lock(place):
        assert problems_of(place) == []
    assert CliRunner().invoke(main, ["inspect", place]).exit_code == 0
    assert cache.shard_keys() == ["toy-000", "toy-001"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


PLACES = [
    "s3://bucket/a::b",
    "zip://x.zip", "zip://a::/nowhere.zip", "tar://x.tar", "libarchive://x", "filecache::s3://bucket/x", "dir://x",
    "simplecache::memory://x", "reference://x", "jupyter://h/x", "generic://x", "nothing://x", "async_wrapper://x",
    "arrow_hdfs://x", "git://x", "://x",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_hold_a_cache_is_one_error(place: str) -> None:
    for command in ("inspect", "verify"):
        done = CliRunner().invoke(main, [command, place])
        assert done.exit_code == 1, done.exception
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {place}: ")
    with pytest.raises(CacheError), run_lock(place):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_a_read_only_parent_does_not_matter(tmp_path: Path, write_sound_cache: Callable[[str], Cache]) -> None:
    place = tmp_path / "parent" / "cache"
    write_sound_cache(str(place))
    nobody = 65534
    for path in [place, *place.rglob("*")]:
        os.chown(path, nobody, nobody)
    for parent in (place.parent, tmp_path, *tmp_path.parents[:-2]):  # pytest's folders are private
        parent.chmod(0o755)
    child = os.fork()
    if child == 0:  # as another user, for whom permissions count
        code = 1
        try:
            os.setgid(nobody)
            os.setuid(nobody)
            with run_lock(str(place)):
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0

"""Every kind of damage is found by kind and path with its remedy, and repair removes only what is damaged."""

from pathlib import Path

import pytest

from cache_schemas.problems import ProblemKind
from cache_schemas.repair import repair
from cache_schemas.store import Cache
from tests.cache_schemas.damages import (  # noqa: F401 - each adds its kinds of damage
    array_bytes,
    array_metadata,
    groups,
    stray_files,
    values,
    zarr_documents,
)
from tests.cache_schemas.damages.registry import DAMAGES, Damage
from tests.cache_schemas.editing import chunk_of, edit_chunk, flip, problems_of

each_damage = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.do.__name__.replace("_", "-"))


def state_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def state_around(folder: Path) -> dict[str, bytes]:
    state = state_of(folder.parent)
    return {path: content for path, content in state.items() if not path.startswith(f"{folder.name}/")}


def test_there_are_many_kinds_of_damage_and_every_kind_of_problem() -> None:
    assert len(DAMAGES) == len({damage.do.__name__ for damage in DAMAGES}) > 100
    assert {kind for damage in DAMAGES for kind, _ in damage.makes} == set(ProblemKind)


@each_damage
def test_damage_is_found_with_its_remedy_and_repair_removes_nothing_else(damage: Damage, sound_folder: Path) -> None:
    damage.do(sound_folder)
    problems = problems_of(sound_folder)
    assert sorted((problem.kind, problem.path) for problem in problems) == sorted(damage.makes)
    for problem in problems:
        assert str(problem).isprintable()
        assert "`labelgen verify --repair`" in str(problem) or "`labelgen run`" in str(problem)

    before, outside = state_of(sound_folder), state_around(sound_folder)
    repair(Cache.open(str(sound_folder), "a")[0], problems)
    after = state_of(sound_folder)
    kept = {path for path in before if not any(path == cost or path.startswith(f"{cost}/") for cost in damage.costs)}
    assert {path: after.get(path) for path in kept} == {path: before[path] for path in kept}
    assert not set(after) - set(before) - {"shards/zarr.json"}
    assert state_around(sound_folder) == outside, "nothing outside the cache is changed"
    left = {problem.kind for problem in problems_of(sound_folder)}
    harmless = {ProblemKind.UNSEALED_GROUP, ProblemKind.MISSING_RECORD, ProblemKind.UNRELATED_FILE}
    assert left <= harmless, "nothing damaged is left"


@pytest.mark.parametrize("place", ["values", "middle", "last value", "index", "checksum of the index"])
def test_a_flipped_bit_in_any_array_is_found(place: str, sound_folder: Path) -> None:
    arrays = sorted(str(path.parent.relative_to(sound_folder)) for path in sound_folder.glob("**/c"))
    assert len(arrays) == 24
    for array in arrays:
        size = chunk_of(sound_folder, array).stat().st_size
        positions = {"values": 4, "middle": size // 2, "last value": size - 21, "index": size - 12}
        edit_chunk(sound_folder, array, flip(positions.get(place, size - 2)))
    problems = problems_of(sound_folder)
    assert sorted(problem.path for problem in problems) == arrays
    assert {problem.kind for problem in problems} <= {ProblemKind.UNREADABLE_ARRAY, ProblemKind.CHECKSUM_MISMATCH}

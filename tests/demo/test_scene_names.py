"""Names and seeds of a world's scenes, and the numbers that `make_world` accepts."""

from pathlib import Path

import pytest

from demo.world import make_world, scene_names, scene_seed


def test_names_and_seeds_differ_by_scene():
    names = scene_names(5, 6)
    assert len(set(names)) == 6
    assert scene_names(5, 2) == names[:2]
    assert all(name.startswith("scene-9") for name in names)
    seeds = {scene_seed(world, index) for world in (5, 6) for index in range(50)}
    assert len(seeds) == 100
    assert min(seeds) >= 2**30, "the demo's teachers learned from scenes with lower seeds"


@pytest.mark.parametrize("wrong", [{"scenes": 0}, {"keyframes": 0}, {"seed": -1}, {"scenes": 1001}])
def test_wrong_numbers_are_refused(tmp_path: Path, wrong: dict):
    with pytest.raises(ValueError, match=r"too small|names for only 1000"):
        make_world(**{"out": tmp_path, "seed": 1, "scenes": 1} | wrong)

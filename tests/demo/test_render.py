"""Views of the demo world, without files: seeds, difficulty, depth."""

from functools import cache

import numpy as np
import pytest

from cache_schemas.taxonomy import IGNORE
from demo.world import View, make_cameras, make_scene, render_view


@cache
def view(difficulty: float, seed: int = 7) -> View:
    camera = make_cameras(seed)[0].resized(160, 90)
    return render_view(make_scene(seed, difficulty), camera, 0.5)


def test_another_seed_gives_another_world():
    assert not np.array_equal(view(0.0).class_ids, view(0.0, seed=8).class_ids)


def test_difficulty_changes_pictures_and_is_checked():
    easy, hard = view(0.0), view(1.0)
    assert not np.array_equal(easy.rgb, hard.rgb)
    assert np.array_equal(easy.rgb, render_view(make_scene(7), make_cameras(7)[0].resized(160, 90), 0.5).rgb)
    with pytest.raises(ValueError, match=r"difficulty 1\.5"):
        make_scene(7, 1.5)


def test_a_view_has_depth_where_it_has_a_class():
    seen = view(0.0)
    assert seen.rgb.shape == (90, 160, 3)
    assert np.array_equal(np.isfinite(seen.depth), seen.class_ids != IGNORE)
    assert seen.depth.min() > 0.3
    assert 40 < seen.rgb.mean() < 215

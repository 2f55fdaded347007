"""What the 3D network learns of points: their intensity, else the grey of their colour, else nothing; or the colour."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from tests.toy_cache import fingerprint_of
from tests.trainer.runs import overrides, run_cli
from tests.trainer.test_builder import batches
from trainer.data.sampler import Step
from trainer.errors import UnfitCacheError

PLAIN = ("augment.images=false", "augment.clouds=false", "networks.voxel_m=0.001")
"""Settings under which each point is a voxel of its own, and heights are not changed."""


def with_points(url: str, keys: Iterable[str], *, intensity: bool, colour: bool) -> None:
    """Write the points of some shards again, with these features."""
    rng, cache = np.random.default_rng(3), Cache(url, "a")
    for key in keys:
        path = GroupPath(key, "points")
        arrays, samples = cache.read(path), cache.seals([path])[path].samples
        if not intensity:
            del arrays["intensity"]
        if colour:
            arrays["colour"] = rng.integers(0, 256, (len(arrays["xyz"]), 3)).astype(np.uint8)
        cache.write_group(path, arrays, Provenance(fingerprint_of("points"), samples=samples))


def features_of_points(url: str, number: int, *more: str) -> np.ndarray:
    """Return the features (P, F) of the points of a sample, without their height."""
    batch = batches(url, *PLAIN, *more)[0][Step(0, 0, (number,))]
    assert len(batch.voxels) == len(batch.point_labels)
    return batch.voxel_features[batch.point_voxel].numpy()[:, :-1]


def test_intensity_else_grey_of_the_colour_else_zero(own: str) -> None:
    with_points(own, ["scene-0-000"], intensity=True, colour=True)
    with_points(own, ["scene-1-000"], intensity=False, colour=True)
    with_points(own, ["scene-2-000"], intensity=False, colour=False)
    cache = Cache(own)
    points = [cache.read(GroupPath(f"scene-{scene}-000", "points")) for scene in range(3)]
    np.testing.assert_array_equal(features_of_points(own, 0), points[0]["intensity"][:240, None])
    grey = np.asarray(Image.fromarray(points[1]["colour"][None, :240]).convert("L"))[0] / 255
    np.testing.assert_allclose(features_of_points(own, 2)[:, 0], grey, atol=0.6 / 255)
    assert not features_of_points(own, 4).any()


def test_colours_are_three_features_in_0_to_1(own: str) -> None:
    keys = [f"scene-{scene}-000" for scene in range(3)]
    with_points(own, keys, intensity=True, colour=True)
    colour = Cache(own).read(GroupPath("scene-0-000", "points"), "colour")["colour"]
    found = features_of_points(own, 0, "networks.point_features=colour")
    np.testing.assert_allclose(found, colour[:240] / 255, rtol=1e-6)


def test_a_run_on_colours_is_scored_on_colours_and_on_nothing_else(own: str, toy: str, tmp_path: Path) -> None:
    with_points(own, [f"scene-{scene}-000" for scene in range(3)], intensity=False, colour=True)
    run_cli("fit", own, "--out", tmp_path / "run", *overrides("networks.point_features=colour", "optimiser.epochs=1"))
    assert "held-out" in run_cli("evaluate", tmp_path / "run", own).stdout
    refused = run_cli("evaluate", tmp_path / "run", toy, exit_code=1).stderr
    assert "points/colour: not in this cache" in refused and "networks.point_features=intensity" in refused


def test_colours_that_the_cache_does_not_have_are_refused(toy: str) -> None:
    with pytest.raises(UnfitCacheError, match=r"points/colour: .*networks\.point_features=intensity"):
        batches(toy, "networks.point_features=colour")

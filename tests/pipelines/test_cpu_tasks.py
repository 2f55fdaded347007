"""A stage that several tasks build in parts has the group of one that is built at once."""

from pathlib import Path

import numpy as np
import pytest

from cache_schemas.store import Cache
from labelgen.samples import Camera, Sample
from labelgen.stages import STAGES
from labelgen.stages.inputs import ShardInputs
from pipelines.config import load_config
from pipelines.cpu_tasks import cut_into_parts
from pipelines.resolve import open_dataset, read_scenes, resolve
from tests.pipelines.conftest import small_settings


def _sample(number: int, pictures: int) -> Sample:
    camera = Camera("c", "c.jpg", 1, 1, np.eye(3), np.eye(4))
    return Sample(str(number), "scene", None, (camera,) * pictures)


@pytest.mark.parametrize(
    ("pictures", "parts"),
    [
        ([6] * 11, [5, 5, 1]),  # 30, 30 and 6 pictures
        ([6] * 10, [5, 5]),
        ([100, 1, 100, 1], [1, 2, 1]),
        ([1] * 29, [29]),
        ([], []),
    ],
)
def test_parts_have_thirty_pictures(pictures: list[int], parts: list[int]) -> None:
    samples = [_sample(number, count) for number, count in enumerate(pictures)]
    found = cut_into_parts(samples)
    assert list(map(len, found)) == parts
    assert [sample for part in found for sample in part] == samples


def test_joined_parts_are_the_group(made: Path, tmp_path: Path) -> None:
    config = load_config("nuscenes", teachers="untrained", overrides=small_settings(made))
    adapter = open_dataset("nuscenes", made / "nuscenes")
    first, *others = read_scenes(config, adapter)[0].samples
    samples = [Sample("one", "s", None, first.cameras[:2]), *others]
    resolved, cache = resolve(config, adapter), Cache(str(tmp_path))

    def build(part: list[Sample]) -> dict[str, np.ndarray]:
        return STAGES["images"].build(ShardInputs(resolved, adapter, part, cache, "s-000"))

    whole = build(samples)
    assert STAGES["images"].join is not None
    joined = STAGES["images"].join([build(samples[:1]), build(samples[1:])])
    assert list(joined) == list(whole)
    assert joined["offsets"].tolist()[:3] == [0, 2, 8]
    for name, values in whole.items():
        assert joined[name].dtype == values.dtype
        np.testing.assert_array_equal(joined[name], values)

"""Which samples are trained on: every one once in an epoch, in an order that the seed decides, divided among ranks."""

import itertools
from collections import Counter

import pytest

from trainer.data.sampler import epoch_order, split_scenes, steps_of_epoch
from trainer.data.stream import SampleRef
from trainer.errors import UnfitCacheError


def refs(*sizes: int) -> list[SampleRef]:
    return [SampleRef(f"s{n}", i, f"{n}-{i}", f"scene-{n}") for n, size in enumerate(sizes) for i in range(size)]


def test_an_epoch_takes_every_sample_once_in_an_order_of_its_own() -> None:
    samples = refs(3, 1, 4, 2, 6)
    orders = [epoch_order(samples, seed, epoch, window_shards=2) for seed, epoch in itertools.product((0, 1), (0, 1))]
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order(samples, 1, 1, window_shards=2) == orders[3]


def test_only_shards_of_one_window_mix() -> None:
    samples = refs(*[5] * 9)
    order = epoch_order(samples, 0, 0, window_shards=3)
    windows = [{samples[number].shard for number in order[start : start + 15]} for start in (0, 15, 30)]
    assert all(len(shards) == 3 for shards in windows)
    first = [samples[number].shard for number in order[:15]]
    assert first != sorted(first, key=first.index), "samples of a window are shuffled, not shard by shard"


@pytest.mark.parametrize(
    ("count", "batch_samples", "world"), [(32, 2, 1), (33, 2, 2), (7, 4, 3), (100, 3, 4), (2, 4, 2)]
)
def test_ranks_split_an_epoch_without_overlap_or_loss(count: int, batch_samples: int, world: int) -> None:
    order = epoch_order(refs(count), 0, 0, window_shards=8)
    ranks = [steps_of_epoch(order, 0, batch_samples, rank, world) for rank in range(world)]
    assert len({len(steps) for steps in ranks}) == 1, "all ranks take equally many steps"
    taken = Counter(number for steps in ranks for step in steps for number in step.sample_indices)
    assert taken == Counter(range(count))
    assert all(step.sample_indices for steps in ranks for step in steps), "no rank is without a sample"
    alone = steps_of_epoch(order, 0, batch_samples * world, 0, 1)
    joint = [tuple(n for steps in ranks for n in steps[i].sample_indices) for i in range(len(alone))]
    assert joint == [step.sample_indices for step in alone], "the ranks' joint steps are those of one rank"


def test_more_ranks_than_samples_are_refused() -> None:
    with pytest.raises(UnfitCacheError, match="2 samples: too few for 3 ranks"):
        steps_of_epoch([0, 1], 0, 1, 0, 3)


def test_every_nth_scene_is_held_out() -> None:
    training, held_out = split_scenes(refs(2, 1, 1, 1, 2, 1, 1), 3)
    assert {ref.scene for ref in held_out} == {"scene-2", "scene-5"}
    assert len(training) + len(held_out) == 9
    assert split_scenes(refs(2, 1), 0) == (refs(2, 1), [])
    with pytest.raises(UnfitCacheError, match="hold_out = 5 leaves 0 of 2 scenes"):
        split_scenes(refs(1, 1), 5)

"""Which samples are trained on, and the order in which the steps of an epoch take them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache_schemas.plurals import counted
from trainer.data.stream import SampleRef
from trainer.errors import UnfitCacheError


@dataclass(frozen=True)
class Step:
    """One step of one rank, which takes samples of one cache.

    Attributes:
        epoch: the number of the pass over the cache's samples. With one cache, this is the epoch of the run.
        number: of the step in this pass.
        sample_indices: into the list of the cache's training samples.
        cache: the position of the cache among those of the run.
    """

    epoch: int
    number: int
    sample_indices: tuple[int, ...]
    cache: int = 0


def split_scenes(samples: Sequence[SampleRef], hold_out: int) -> tuple[list[SampleRef], list[SampleRef]]:
    """Return the samples to train on, and those of every `hold_out`-th scene in order of scene names (0: none).

    Raises:
        UnfitCacheError: if no scene would be left to train on, or none would be held out.
    """
    scenes = sorted({ref.scene for ref in samples})
    held_out = set(scenes[hold_out - 1 :: hold_out]) if hold_out else set()
    if hold_out and not 0 < len(held_out) < len(scenes):
        raise UnfitCacheError(
            f"stream.hold_out = {hold_out} leaves {len(held_out)} of {counted(len(scenes), 'scene')} for evaluation; "
            "choose a number from 2 to the number of scenes, or 0 to hold out none, with --set stream.hold_out=N"
        )
    return [r for r in samples if r.scene not in held_out], [r for r in samples if r.scene in held_out]


def epoch_order(samples: Sequence[SampleRef], seed: int, epoch: int, window_shards: int) -> list[int]:
    """Return the order in which an epoch takes samples, as indices into `samples`.

    The shards are shuffled. Then the samples of each `window_shards` consecutive shards are shuffled together, so that
    only few shards are read at a time.
    """
    rng = np.random.default_rng([seed, epoch])
    by_shard: dict[str, list[int]] = {}
    for index, ref in enumerate(samples):
        by_shard.setdefault(ref.shard, []).append(index)
    shards = list(by_shard)
    shuffled = [shards[i] for i in rng.permutation(len(shards))]
    order: list[int] = []
    for start in range(0, len(shuffled), window_shards):
        window = [index for shard in shuffled[start : start + window_shards] for index in by_shard[shard]]
        order += [window[i] for i in rng.permutation(len(window))]
    return order


def steps_of_epoch(
    order: Sequence[int], epoch: int, batch_samples: int, rank: int = 0, world: int = 1, cache: int = 0
) -> list[Step]:
    """Divide an epoch's order into steps of `batch_samples` samples on each of `world` ranks; return those of `rank`.

    Every sample is taken once by one rank, and all ranks take the same number of steps: where the division leaves a
    remainder, some steps take one sample more.

    Raises:
        UnfitCacheError: if there are fewer samples than ranks.
    """
    if len(order) < world:
        raise UnfitCacheError(
            f"{counted(len(order), 'sample')}: too few for {counted(world, 'rank')}; start at most {len(order)}"
        )
    count = max(1, len(order) // (batch_samples * world))
    joint = np.array_split(np.asarray(order), count)
    return [
        Step(epoch, number, tuple(int(i) for i in np.array_split(part, world)[rank]), cache)
        for number, part in enumerate(joint)
    ]

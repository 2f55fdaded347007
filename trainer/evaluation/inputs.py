"""What a run is scored on: the stream of a cache for its networks, and the samples to use."""

from collections.abc import Sequence

from trainer.data.sampler import split_scenes
from trainer.data.stream import CacheStream, SampleRef
from trainer.errors import UnfitCacheError
from trainer.run_folder import RunRecord

INPUT_ARRAYS = ("images/rgb", "sam/mask_ids", "points/xyz", "points/intensity", "labels/image", "labels/point")
PAIR_ARRAYS = ("pairs/point", "pairs/image", "pairs/row", "pairs/col")
SCORED_ARRAYS = ("labels/image_raw", "labels/point_raw", "truth/point")


def open_for_scoring(record: RunRecord, cache: str) -> CacheStream:
    """Return the stream of a cache with truth, for a run's networks.

    Raises:
        CacheError, UnfitCacheError: if it cannot be read, has no truth, or has other classes than the run.
    """
    return _open(record, cache, SCORED_ARRAYS, optional=["truth/image", "pairs/visible"])


def open_for_prediction(record: RunRecord, cache: str) -> CacheStream:
    """Return the stream of a cache, with or without truth, for a run's networks.

    Raises:
        CacheError, UnfitCacheError: if it cannot be read, or has other classes than the run.
    """
    return _open(record, cache, (), optional=["pairs/visible"])


def choose_scenes(stream: CacheStream, record: RunRecord, scenes: str | None) -> tuple[list[SampleRef], str]:
    """Return the samples of the `scenes` asked for (`held-out`, `training` or `all`), and which these are.

    None chooses the held-out scenes if the run was trained on this cache and held some out, else all.

    Raises:
        UnfitCacheError: if the run held out no scene and all are not asked for.
    """
    hold_out = record.settings.stream.hold_out
    if scenes is None:
        scenes = "held-out" if hold_out and stream.url == record.cache else "all"
    if scenes == "all":
        return stream.samples, scenes
    if not hold_out:
        raise UnfitCacheError(
            f"--scenes {scenes}: the run held out no scene (stream.hold_out = 0); choose --scenes all"
        )
    training, held_out = split_scenes(stream.samples, hold_out)
    return (training if scenes == "training" else held_out), scenes


def _open(record: RunRecord, cache: str, more: Sequence[str], optional: Sequence[str]) -> CacheStream:
    stream = CacheStream(cache, [*INPUT_ARRAYS, *PAIR_ARRAYS, *more], optional=optional)
    taxonomy = stream.manifest.taxonomy
    if taxonomy.digest != record.taxonomy.digest:
        raise UnfitCacheError(
            f"{cache}: its classes are those of {taxonomy.name!r} ({', '.join(taxonomy.names)}), but the run was "
            f"trained on {record.taxonomy.name!r} ({', '.join(record.taxonomy.names)}); use a cache with these classes"
        )
    return stream

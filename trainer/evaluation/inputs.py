"""What a run is scored on: the stream of a cache for its networks, and the samples to use."""

from collections.abc import Mapping, Sequence

from trainer.data.point_features import point_arrays
from trainer.data.stream import CacheStream, SampleRef
from trainer.errors import UnfitCacheError
from trainer.run_record import RunRecord

INPUT_ARRAYS = ("images/rgb", "sam/mask_ids", "labels/image", "labels/point")
PAIR_ARRAYS = ("pairs/point", "pairs/image", "pairs/row", "pairs/col")
SCORED_ARRAYS = ("labels/image_raw", "labels/point_raw")
TRUTH = "truth/point"


def open_for_scoring(record: RunRecord, cache: str) -> CacheStream:
    """Return the stream of a cache with truth, for a run's networks.

    Some shards may lack truth, such as those of a test split; see `with_truth`.

    Raises:
        CacheError, UnfitCacheError: if it cannot be read, or has other classes than the run.
    """
    of_points, optional = point_arrays(record.settings.networks)
    needed = [*INPUT_ARRAYS, *of_points, *PAIR_ARRAYS, *SCORED_ARRAYS]
    stream = CacheStream(cache, needed, optional=[*optional, TRUTH, "truth/image", "pairs/visible"])
    _refuse_other_classes(stream, record, cache)
    return stream


def with_truth(stream: CacheStream, samples: Sequence[SampleRef]) -> list[SampleRef]:
    """Return those of the samples whose points have truth.

    Raises:
        UnfitCacheError: if none has.
    """
    found = [ref for ref in samples if stream.has(ref, TRUTH)]
    if not found:
        raise UnfitCacheError(
            f"{stream.url}: truth: not sealed for any of the {len(samples)} samples to score; choose scenes, or a "
            "cache of a split, that have truth"
        )
    return found


def open_for_prediction(record: RunRecord, cache: str) -> CacheStream:
    """Return the stream of a cache's points for a run's 3D network; no other group of the cache is needed.

    Raises:
        CacheError, UnfitCacheError: if it cannot be read, or has other classes than the run.
    """
    needed, optional = point_arrays(record.settings.networks)
    stream = CacheStream(cache, needed, optional=optional, only_their_groups=True)
    _refuse_other_classes(stream, record, cache)
    return stream


def choose_scenes(stream: CacheStream, record: RunRecord, scenes: str | None) -> tuple[list[SampleRef], str]:
    """Return the samples of the `scenes` asked for (`held-out`, `training` or `all`), and which these are.

    Scenes are recognised by their pictures and clouds, wherever the cache lies and however it grew. Held-out scenes are
    those of the run, or else all that it was not trained on. None chooses all scenes if the run was trained on none of
    them, else the held-out ones, or the training scenes where there are no others.

    Raises:
        UnfitCacheError: if no scene is held out, or none was trained on, and those are asked for.
    """
    contents = stream.scene_contents()
    trained = _known(contents, record.trained)
    held_out = (_known(contents, record.held_out) or set(contents)) - trained
    if scenes is None:
        scenes = "all" if not trained else "held-out" if held_out else "training"
    chosen = {"all": set(contents), "held-out": held_out, "training": trained}[scenes]
    if not chosen:
        reason = "the run was trained on all of them" if trained else "the run was trained on none of them"
        raise UnfitCacheError(f"--scenes {scenes}: {stream.url} has no such scenes, {reason}; choose --scenes all")
    return [ref for ref in stream.samples if ref.scene in chosen], scenes


def _known(contents: Mapping[str, Sequence[str]], recorded: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the scenes of a cache whose pictures or clouds are those of a recorded scene."""
    digests = {digest for found in recorded.values() for digest in found}
    return {scene for scene, found in contents.items() if digests.intersection(found)}


def _refuse_other_classes(stream: CacheStream, record: RunRecord, cache: str) -> None:
    taxonomy = stream.manifest.taxonomy
    if taxonomy.digest != record.taxonomy.digest:
        raise UnfitCacheError(
            f"{cache}: its classes are those of {taxonomy.name!r} ({', '.join(taxonomy.names)}), but the run was "
            f"trained on {record.taxonomy.name!r} ({', '.join(record.taxonomy.names)}); use a cache with these classes"
        )

"""What a run is scored on: the stream of a cache for its networks, and the samples to use."""

from collections.abc import Mapping, Sequence

from cache_schemas.plurals import counted
from cache_schemas.store import Cache
from trainer.data.admission import refuse_without_points
from trainer.data.point_features import point_arrays
from trainer.data.stream import CacheStream, SampleRef
from trainer.errors import TrainerError, UnfitCacheError
from trainer.evaluation.ensemble import FEATURES, SCALE
from trainer.run_record import RunRecord

PICTURE_ARRAYS = ("images/rgb", "sam/mask_ids", "labels/image", "labels/image_raw")
PAIR_ARRAYS = ("pairs/point", "pairs/image", "pairs/row", "pairs/col", "labels/point", "labels/point_raw")
POINT_TRUTH, PICTURE_TRUTH = "truth/point", "truth/image"


def open_for_scoring(
    record: RunRecord, cache: str, *, shared_classes: bool = False, ensemble: bool = False
) -> CacheStream:
    """Return the stream of a cache with truth, for a run's networks; it may hold pictures alone.

    Some shards may lack truth, such as those of a test split; see `with_truth`. With `shared_classes`, its classes may
    be others than those of the run. With `ensemble`, the 3D network and CLIP's features are needed.

    Raises:
        CacheError, UnfitCacheError: if it cannot be read, or has other classes than the run.
        TrainerError: if the run has no 3D network, and the ensemble needs it.
    """
    _, manifest = Cache.open(cache)
    if ensemble:
        refuse_without_cloud_network(record, "--ensemble")
        refuse_without_points(cache, manifest)
    needed, optional = list(PICTURE_ARRAYS), [PICTURE_TRUTH]
    if "point" in manifest.modalities:
        of_points, more = point_arrays(record.settings.networks)
        needed += [*of_points, *PAIR_ARRAYS]
        optional += [*more, POINT_TRUTH, "pairs/visible"]
        needed += [FEATURES] if ensemble else []
        optional += [SCALE] if ensemble else []
    elif record.settings.networks.image == "none":
        raise UnfitCacheError(f"{cache}: holds pictures alone, and the run has no 2D network; use a cache with points")
    stream = CacheStream(cache, needed, optional=optional)
    if not shared_classes:
        _refuse_other_classes(
            stream, record, cache, "or score the classes of equal names with `trainer evaluate --shared-classes`"
        )
    return stream


def truth_arrays(stream: CacheStream, ref: SampleRef) -> list[str]:
    """Return the arrays with truth of a sample."""
    return [path for path in (POINT_TRUTH, PICTURE_TRUTH) if stream.has(ref, path)]


def with_truth(stream: CacheStream, samples: Sequence[SampleRef]) -> list[SampleRef]:
    """Return those of the samples whose points have truth, or whose pictures have it in a cache of pictures alone.

    Raises:
        UnfitCacheError: if none has.
    """
    truth = POINT_TRUTH if "point" in stream.manifest.modalities else PICTURE_TRUTH
    found = [ref for ref in samples if stream.has(ref, truth)]
    if not found:
        raise UnfitCacheError(
            f"{stream.url}: truth: not sealed for any of the {counted(len(samples), 'sample')} to score; choose "
            "scenes, or a cache of a split, that have truth"
        )
    return found


def open_for_prediction(record: RunRecord, cache: str) -> CacheStream:
    """Return the stream of a cache's points for a run's 3D network; no other group of the cache is needed.

    Raises:
        CacheError, UnfitCacheError: if it cannot be read, or has other classes than the run.
        TrainerError: if the run has no 3D network.
    """
    refuse_without_cloud_network(record, "trainer predict")
    refuse_without_points(cache, Cache.open(cache)[1])
    needed, optional = point_arrays(record.settings.networks)
    stream = CacheStream(cache, needed, optional=optional, only_their_groups=True)
    _refuse_other_classes(stream, record, cache)
    return stream


def refuse_without_cloud_network(record: RunRecord, purpose: str) -> None:
    """Check that a run has a 3D network, which `purpose` needs.

    Raises:
        TrainerError: if it has none.
    """
    if record.settings.networks.cloud == "none":
        raise TrainerError(f"networks.cloud of the run is none, but {purpose} needs a 3D network; choose another run")


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


def _refuse_other_classes(stream: CacheStream, record: RunRecord, cache: str, otherwise: str = "") -> None:
    taxonomy = stream.manifest.taxonomy
    if taxonomy.digest != record.taxonomy.digest:
        raise UnfitCacheError(
            f"{cache}: its classes are those of {taxonomy.name!r} ({', '.join(taxonomy.names)}), but the run was "
            f"trained on {record.taxonomy.name!r} ({', '.join(record.taxonomy.names)}); use a cache with these classes"
            + (f", {otherwise}" if otherwise else "")
        )

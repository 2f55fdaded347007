"""A rerun recording of samples: the cloud in 3D by label and by truth, and cameras in their places with pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache_schemas.documents import CacheManifest
from cache_schemas.errors import CacheError
from cache_schemas.layout import AnyArray
from cache_schemas.store import Cache

if TYPE_CHECKING:
    from rerun import RecordingStream

_GREY = (150, 150, 150)
_PICTURE_DISTANCE_M = 2.0


def write_recording(url: str, shown: Sequence[tuple[str, str]], file: Path) -> Path:
    """Write the shown (shard, sample id) as one `.rrd` file, a step of the timeline `sample` each; returns it.

    Raises:
        CacheError: if rerun is not installed.
        OSError: if the file cannot be written.
    """
    try:
        import rerun
    except ImportError:
        raise CacheError("--rerun needs the package rerun-sdk: pip install 'labelgen[rerun]'") from None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")  # rerun reports a file that it cannot open from a thread of its own, where no one sees it
    cache, manifest = Cache.open(url)
    recording = rerun.RecordingStream("labelgen inspect", send_properties=False)
    recording.save(file)
    classes = [
        rerun.AnnotationInfo(id=i, label=entry.name, color=entry.colour)
        for i, entry in enumerate(manifest.taxonomy.classes)
    ]
    recording.log("/", rerun.AnnotationContext(classes), static=True)
    recording.log("cloud", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    for step, (key, token) in enumerate(shown):
        recording.set_time("sample", sequence=step)
        _log_sample(recording, cache, manifest, key, token)
    recording.flush()
    return file


def _log_sample(recording: "RecordingStream", cache: Cache, manifest: CacheManifest, key: str, token: str) -> None:
    import rerun

    record = cache.shard_records([key])[key]
    sample = record.samples.index(token)
    labels = cache.read(f"shards/{key}/labels")
    recording.log("about", rerun.TextDocument(f"{key}, sample {token}"))
    _log_cloud(recording, cache, f"shards/{key}", sample, labels, len(manifest.taxonomy.classes))
    _log_cameras(recording, cache, f"shards/{key}", sample, labels, record.cameras)


def _log_cloud(
    recording: "RecordingStream", cache: Cache, shard: str, sample: int, labels: dict[str, AnyArray], classes: int
) -> None:
    """Log the points three times, by voted and raw label and by truth; those without a label apart, in grey."""
    import rerun

    points = cache.read(f"{shard}/points", "xyz", "offsets")
    own = slice(*(int(i) for i in points["offsets"][sample : sample + 2]))
    xyz = points["xyz"][own]
    clouds = {"voted": labels["point"][own], "raw": labels["point_raw"][own]}
    if cache.seals([f"{shard}/truth"]):
        clouds["truth"] = cache.read(f"{shard}/truth", "point")["point"][own]
    for name, ids in clouds.items():
        known = ids < classes
        recording.log(f"cloud/{name}", rerun.Points3D(xyz[known], class_ids=ids[known], radii=0.05))
    recording.log("cloud/unlabelled", rerun.Points3D(xyz[labels["point"][own] >= classes], colors=_GREY, radii=0.03))


def _log_cameras(
    recording: "RecordingStream",
    cache: Cache,
    shard: str,
    sample: int,
    labels: dict[str, AnyArray],
    cameras: Sequence[str],
) -> None:
    """Log each camera where it stood, with its picture, voted labels and masks."""
    import rerun

    images = cache.read(f"{shard}/images")
    mask_ids = cache.read(f"{shard}/sam", "mask_ids")["mask_ids"]
    height, width = images["rgb"].shape[1:3]
    for i, camera in enumerate(cameras, start=int(images["offsets"][sample])):
        cloud_from_cam = np.linalg.inv(images["cam_from_cloud"][i])
        lens = rerun.Pinhole(
            image_from_camera=images["intrinsics"][i],
            resolution=(width, height),
            camera_xyz=rerun.ViewCoordinates.RDF,
            image_plane_distance=_PICTURE_DISTANCE_M,
        )
        place = f"cloud/{camera}"
        recording.log(place, rerun.Transform3D(translation=cloud_from_cam[:3, 3], mat3x3=cloud_from_cam[:3, :3]), lens)
        recording.log(f"{place}/picture", rerun.Image(images["rgb"][i]))
        recording.log(f"{place}/voted", rerun.SegmentationImage(labels["image"][i], opacity=0.4))
        recording.log(f"{place}/masks", rerun.SegmentationImage(mask_ids[i], opacity=0.0))

"""A rerun recording of samples: the cloud in 3D by label and by truth, and cameras in their places with pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache_schemas.errors import CacheError
from cache_schemas.store import Cache
from labelgen.inspection.samples import Sample, read_shown

if TYPE_CHECKING:
    from rerun import RecordingStream

_LOGGED = {"images": (), "points": ("xyz",), "labels": (), "sam": ("mask_ids",)}
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
    for step, sample in enumerate(read_shown(cache, shown, _LOGGED)):
        recording.set_time("sample", sequence=step)
        recording.log("about", rerun.TextDocument(f"{sample.shard}, sample {sample.token}"))
        _log_cloud(recording, sample, len(classes))
        _log_cameras(recording, sample)
    recording.flush()
    return file


def _log_cloud(recording: "RecordingStream", sample: Sample, classes: int) -> None:
    """Log the points three times, by voted and raw label and by truth; those without a label apart, in grey."""
    import rerun

    xyz, labels = sample["points"]["xyz"], sample["labels"]
    clouds = {"voted": labels["point"], "raw": labels["point_raw"]}
    if "point" in sample["truth"]:
        clouds["truth"] = sample["truth"]["point"]
    for name, ids in clouds.items():
        known = ids < classes
        recording.log(f"cloud/{name}", rerun.Points3D(xyz[known], class_ids=ids[known], radii=0.05))
    recording.log("cloud/unlabelled", rerun.Points3D(xyz[labels["point"] >= classes], colors=_GREY, radii=0.03))


def _log_cameras(recording: "RecordingStream", sample: Sample) -> None:
    """Log each camera where it stood, with its picture, voted labels and masks."""
    import rerun

    images, labels, mask_ids = sample["images"], sample["labels"], sample["sam"]["mask_ids"]
    height, width = images["rgb"].shape[1:3]
    for i, camera in enumerate(sample.cameras):
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

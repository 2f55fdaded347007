"""Write samples as a rerun recording: the cloud in 3D by label and by truth, and the cameras with their pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache_schemas.errors import CacheError
from cache_schemas.store import Cache
from labelgen.inspection.counting.samples import Sample, SampleId, iterate_samples
from labelgen.inspection.showing.instance_colours import instance_colours

if TYPE_CHECKING:
    from rerun import RecordingStream

_RECORDED_ARRAYS = {
    "images": (),
    "points": ("xyz",),
    "labels": (),
    "sam": ("mask_ids",),
    "instances": ("point",),
    "instance_labels": ("point",),
    "time": ("point",),
}
_GREY = (150, 150, 150)
_PICTURE_DISTANCE_M = 2.0


def write_recording(url: str, samples: Sequence[SampleId], file: Path, source: str | None = None) -> Path:
    """Write samples of the cache at `url` as one `.rrd` file; each is a step of the timeline `sample`.

    Raises:
        CacheError: if rerun is not installed.
        OSError: if the file cannot be written.
    """
    try:
        import rerun
    except ImportError:
        raise CacheError("--rerun needs the package rerun-sdk: pip install 'labelgen[rerun]'") from None
    file.parent.mkdir(parents=True, exist_ok=True)
    # rerun opens the file in a thread of its own and only prints an error there. Writing it here raises OSError.
    file.write_bytes(b"")
    cache, manifest = Cache.open(url)
    recording = rerun.RecordingStream("labelgen inspect", send_properties=False)
    recording.save(file)
    classes = [
        rerun.AnnotationInfo(id=i, label=entry.name, color=entry.colour)
        for i, entry in enumerate(manifest.taxonomy.classes)
    ]
    recording.log("/", rerun.AnnotationContext(classes), static=True)
    recording.log("cloud", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    for step, sample in enumerate(iterate_samples(cache, samples, _RECORDED_ARRAYS, source)):
        recording.set_time("sample", sequence=step)
        recording.log("about", rerun.TextDocument(f"{sample.shard}, sample {sample.token}"))
        if sample.has_points:
            _record_cloud(recording, sample, len(classes))
        _record_cameras(recording, sample)
    recording.flush()
    return file


def _record_cloud(recording: "RecordingStream", sample: Sample, classes: int) -> None:
    """Record the points by voted and raw label and by truth, and over time and by instance if the cache has these.

    Points without a label are separate, in grey.
    """
    import rerun

    xyz, labels = sample["points"]["xyz"], sample["labels"]
    ids_by_name = {"voted": labels["point"], "raw": labels["point_raw"]}
    if "time" in sample.groups:
        ids_by_name["over_time"] = sample["time"]["point"]
    if "point" in sample["truth"]:
        ids_by_name["truth"] = sample["truth"]["point"]
    if "instance_labels" in sample.groups:
        ids_by_name["with_instances"] = sample["instance_labels"]["point"]
    for name, ids in ids_by_name.items():
        known = ids < classes
        recording.log(f"cloud/{name}", rerun.Points3D(xyz[known], class_ids=ids[known], radii=0.05))
    if "instances" in sample.groups:
        instance = sample["instances"]["point"]
        own, colours = instance > 0, instance_colours(instance, xyz)
        recording.log("cloud/instances", rerun.Points3D(xyz[own], colors=colours[own], radii=0.05))
    recording.log("cloud/unlabelled", rerun.Points3D(xyz[labels["point"] >= classes], colors=_GREY, radii=0.03))


def _record_cameras(recording: "RecordingStream", sample: Sample) -> None:
    """Record each camera at its pose in the cloud's frame, with its picture, voted labels and masks."""
    import rerun

    images, labels, mask_ids = sample["images"], sample["labels"], sample["sam"]["mask_ids"]
    height, width = images["rgb"].shape[1:3]
    for i, name in enumerate(sample.pictures):
        cloud_from_cam = np.linalg.inv(images["cam_from_cloud"][i])
        pinhole = rerun.Pinhole(
            image_from_camera=images["intrinsics"][i],
            resolution=(width, height),
            camera_xyz=rerun.ViewCoordinates.RDF,
            image_plane_distance=_PICTURE_DISTANCE_M,
        )
        pose = rerun.Transform3D(translation=cloud_from_cam[:3, 3], mat3x3=cloud_from_cam[:3, :3])
        entity = f"cloud/{name}"
        recording.log(entity, pose, pinhole)
        recording.log(f"{entity}/picture", rerun.Image(images["rgb"][i]))
        recording.log(f"{entity}/voted", rerun.SegmentationImage(labels["image"][i], opacity=0.4))
        recording.log(f"{entity}/masks", rerun.SegmentationImage(mask_ids[i], opacity=0.0))

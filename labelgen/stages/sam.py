"""Stage `sam`: one mask id for each pixel, and the image embedding, from pictures at their own size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labelgen.pictures import read_native_images
from labelgen.samples import Sample
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.raw_files import FileSizes, picture_sizes, tokens
from labelgen.stages.stage import Stage, Teacher, TeacherCall

if TYPE_CHECKING:
    from labelgen.teachers.sam.preprocessing import ResizedImage
    from labelgen.teachers.sam.teacher import SamResult, SamTeacher

CHANGE_NOTHING = {"weights", "points_per_batch", "compile"}
"""Settings that do not take part in fingerprints: weights are known by their digest, the others change only speed."""


def settings(resolved: ResolvedSettings) -> Any:
    """Return the thresholds, the network, and the size of the id maps.

    The second threshold for boxes is only named where it shapes the masks, so that other caches stay up to date.
    """
    sam = resolved.settings.sam
    removes = sam.min_mask_region_area > 0 and sam.small_region_nms_thresh != sam.box_nms_thresh
    return [
        sam.model_dump(exclude=CHANGE_NOTHING),
        resolved.teachers.networks[TEACHER.name].to_attrs(),
        resolved.settings.images.model_dump(),
        *([{"small_region_nms_thresh": sam.small_region_nms_thresh}] if removes else []),
    ]


def raw_inputs(samples: Sequence[Sample], sizes: FileSizes) -> Any:
    """Return tokens and pictures."""
    return [tokens(samples), picture_sizes(samples, sizes)]


def load(resolved: ResolvedSettings, device: str) -> "SamTeacher":
    """Load the network.

    Raises:
        LabelgenError: if there is no such architecture, or the weights do not fit it.
    """
    from labelgen.teachers.sam.teacher import SamTeacher

    return SamTeacher(resolved.settings.sam, device)


def decode(inputs: ShardInputs) -> "list[ResizedImage]":
    """Decode pictures at their own size, and resize them for the encoder.

    Raises:
        SampleError: if a picture cannot be used.
    """
    from labelgen.teachers.sam.preprocessing import resize_for_sam

    architecture = inputs.settings.sam.architecture
    return [
        resize_for_sam(image, architecture)
        for sample in inputs.samples
        for image in read_native_images(inputs.adapter, sample)
    ]


def receive(model: "SamTeacher", inputs: ShardInputs, decoded: "list[ResizedImage]") -> tuple[Any, ...]:
    """Upload the pictures; returns the arguments of `SamTeacher.segment`."""
    return model.upload(decoded), decoded[0].native_size, inputs.settings.images.size


def compute(model: "SamTeacher", batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """Segment the pictures on the device."""
    return model.segment(*batch)


def fetch(model: "SamTeacher", segmented: tuple[Any, ...]) -> "SamResult":
    """Bring the results to the host."""
    return model.fetch(*segmented)


def gather(parts: "Sequence[SamResult]") -> Arrays:
    """Join the id maps and the embeddings, with their scales where they are int8."""
    arrays: Arrays = {
        "mask_ids": np.concatenate([part.mask_ids for part in parts]),
        "features": np.concatenate([part.features for part in parts]),
    }
    scales = [part.features_scale for part in parts if part.features_scale is not None]
    if scales:
        arrays["features_scale"] = np.concatenate(scales)
    return arrays


def counts(arrays: Arrays) -> dict[str, int]:
    """Return the largest number of masks that one image has."""
    return {"masks": int(arrays["mask_ids"].max(initial=0))}


TEACHER = Teacher("sam", load)

SAM = Stage(
    name="sam",
    description="SAM masks as one id a pixel, and the image embedding",
    version=2,
    build=TeacherCall(TEACHER, receive, compute, gather, decode, fetch),
    settings=settings,
    raw_inputs=raw_inputs,
    counts=counts,
)

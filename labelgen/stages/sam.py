"""Stage `sam`: one mask id for each pixel, and the image embedding, from pictures at their own size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labelgen.pictures import read_image
from labelgen.samples import Sample
from labelgen.settings import shaping
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.raw_files import FileSizes, picture_sizes, tokens
from labelgen.stages.stage import Stage, Teacher, TeacherCall

if TYPE_CHECKING:
    from labelgen.teachers.sam.preprocessing import ResizedImage
    from labelgen.teachers.sam.teacher import SamResult, SamTeacher

OneSize = tuple[list[int], tuple[Any, ...]]
"""Places in a call of the pictures of one native size, and arguments of a step of the teacher for all of them."""

CHANGE_NOTHING = {"weights", "points_per_batch", "compile"}
"""Settings that do not take part in fingerprints: weights are known by their digest, the others change only speed."""


def settings(resolved: ResolvedSettings) -> Any:
    """Return the thresholds, the network, and the size of the id maps.

    The second threshold for boxes is only named where it shapes the masks, so that other caches stay up to date.
    """
    sam = resolved.settings.sam
    removes = sam.min_mask_region_area > 0 and sam.small_region_nms_thresh != sam.box_nms_thresh
    return [
        shaping(sam, without=CHANGE_NOTHING),
        resolved.teachers.networks[TEACHER.name].to_attrs(),
        shaping(resolved.settings.images),
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
        resize_for_sam(read_image(inputs.adapter, camera), architecture)
        for sample in inputs.samples
        for camera in sample.cameras
    ]


def receive(model: "SamTeacher", inputs: ShardInputs, decoded: "list[ResizedImage]") -> list[OneSize]:
    """Upload the pictures; returns, for each native size, their places and the arguments of `SamTeacher.segment`."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, picture in enumerate(decoded):
        places.setdefault(picture.native_size, []).append(place)
    size = inputs.settings.images.size
    return [
        (of_size, (model.upload([decoded[place] for place in of_size]), native_size, size))
        for native_size, of_size in places.items()
    ]


def compute(model: "SamTeacher", batches: list[OneSize]) -> list[OneSize]:
    """Segment the pictures on the device."""
    return [(places, model.segment(*batch)) for places, batch in batches]


def fetch(model: "SamTeacher", segmented: list[OneSize]) -> "list[SamResult]":
    """Bring the results to the host; returns one result for each picture, in their order."""
    results: dict[int, SamResult] = {}
    for places, batch in segmented:
        results |= zip(places, model.fetch(*batch).split(), strict=True)
    return [results[place] for place in sorted(results)]


def gather(parts: "Sequence[list[SamResult]]") -> Arrays:
    """Join the id maps and the embeddings, with their scales where they are int8.

    Embeddings of pictures of other proportions have other sizes. They are padded with zeros to the largest one, and
    `features_valid` tells the size of each.
    """
    results = [result for part in parts for result in part]
    valid = np.array([result.features.shape[1:3] for result in results], np.uint16)
    features = np.zeros((len(results), *valid.max(axis=0), results[0].features.shape[3]), results[0].features.dtype)
    for result, (rows, cols), padded in zip(results, valid, features, strict=True):
        padded[:rows, :cols] = result.features[0]
    arrays: Arrays = {
        "mask_ids": np.concatenate([result.mask_ids for result in results]),
        "features": features,
    }
    scales = [result.features_scale for result in results if result.features_scale is not None]
    if scales:
        arrays["features_scale"] = np.concatenate(scales)
    if np.ptp(valid, axis=0).any():
        arrays["features_valid"] = valid
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

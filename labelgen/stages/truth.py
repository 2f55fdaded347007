"""Stage `truth`: ground truth of points and pixels, where the dataset has it. Only scoring reads it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.pictures import read_id_picture
from labelgen.samples import Camera, Sample
from labelgen.settings import shaping
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs, each_sample
from labelgen.stages.points import TASK
from labelgen.stages.raw_files import FileSizes
from labelgen.stages.stage import Stage
from labelgen.teachers.sam.resampling import nearest_pixels


def settings(resolved: ResolvedSettings) -> Any:
    """Return the taxonomy, and the size of the images."""
    return [resolved.taxonomy.digest, shaping(resolved.settings.images)]


def raw_inputs(samples: Sequence[Sample], digests: FileSizes) -> Any:
    """Return the files with truth and digests of their content, and truth from tables; None if no sample has any."""
    files = [digests(sample.truth_paths) for sample in samples]
    masks = [[camera.truth_masks for camera in sample.cameras] for sample in samples]
    from_tables = any(of_image for of_sample in masks for of_image in of_sample)
    return [*files, *([masks] if from_tables else [])] if any(files) or from_tables else None


def build(inputs: ShardInputs) -> Arrays:
    """Read the truth of all points, and of images at training size if every image has its truth.

    Raises:
        BadSamplesError: naming every sample whose truth cannot be read or does not fit.
    """
    clouds = (
        {s.token: cloud for s, cloud in zip(inputs.samples, inputs.clouds, strict=True)} if inputs.has_points else {}
    )

    def read(sample: Sample) -> tuple[NDArray[np.uint8], list[NDArray[Any] | None], list[NDArray[Any] | None]]:
        no_points = sample.cloud_path is None
        return (
            np.zeros(0, np.uint8)
            if no_points
            else inputs.adapter.read_point_truth(sample, len(clouds[sample.token].xyz)),
            [_read_classes(inputs, camera) for camera in sample.cameras],
            [_read_segments(inputs, camera) for camera in sample.cameras],
        )

    points, images, segments = zip(*each_sample(inputs.samples, read), strict=True)
    arrays: Arrays = {"point": np.concatenate(points)} if inputs.has_points else {}
    for name, found, dtype in (("image", images, np.uint8), ("segments", segments, np.uint16)):
        pictures = [ids for of_sample in found for ids in of_sample if ids is not None]
        if len(pictures) == sum(map(len, found)):
            arrays[name] = np.stack(pictures).astype(dtype)
    return arrays


def _read_classes(inputs: ShardInputs, camera: Camera) -> NDArray[Any] | None:
    """Read the classes of a picture, and take at each pixel of the training size the class at its centre.

    Raises:
        SampleError: if the file cannot be read, or its size is not the camera's.
    """
    ids = inputs.adapter.read_image_truth(camera)
    return None if ids is None else nearest_pixels(ids, inputs.settings.images.size)


def _read_segments(inputs: ShardInputs, camera: Camera) -> NDArray[Any] | None:
    """Read the segments of a picture like its classes; None if it has none."""
    if camera.segments_path is None:
        return None
    ids = read_id_picture(inputs.adapter, camera.segments_path, (camera.height_px, camera.width_px))
    return nearest_pixels(ids, inputs.settings.images.size)


TRUTH = Stage(
    name="truth",
    description="ground truth, for scoring only",
    version=1,
    build=build,
    settings=settings,
    made_from=("points",),
    raw_inputs=raw_inputs,
    by_content=True,
    task=TASK,
)

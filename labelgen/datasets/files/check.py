"""`labelgen check`: what a list of samples holds, which files are missing, and whether its first sample makes sense."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.datasets.files.adapter import ALL, Files, cloud_entry
from labelgen.datasets.files.clouds import named_columns
from labelgen.datasets.files.lines import rigid_error
from labelgen.datasets.files.sheet import draw_sheet
from labelgen.errors import PromptsError, SampleError
from labelgen.geometry import Pairs, invert_rigid, pair_points
from labelgen.pictures import read_id_picture, read_image
from labelgen.prompts import load_prompts
from labelgen.samples import Camera, Cloud, Sample, Scene, file_sizes

MIN_DEPTH_M = 0.5
"""Least depth of the points that are counted and drawn; that of the settings."""

SMALLEST_SEEN_SHARE = 0.05
RIGID_WARNING = 1e-3
FAINT = 0.02
"""A cloud whose largest intensity is below this has probably another scale."""

NAMED_FILES = 3

MOST_CHARACTERS = 600
"""The greatest length of a line that `labelgen check` prints; names of scenes and columns can have any."""


@dataclass
class Findings:
    """What `labelgen check` tells.

    Attributes:
        lines: what the list holds.
        warnings: what is possible, but suspicious.
        problems: what a run would stop at, or quarantine samples for.
        picture: the first sample with its points over the pictures, (H, W, 3) u8; None if it has no cloud, or cannot
            be read.
    """

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    picture: NDArray[np.uint8] | None = None


def check_list(data: Path) -> Findings:
    """Check a list of samples, or the one in a folder.

    Raises:
        DatasetError: if the list or the taxonomy is malformed.
        SourceError: if a file cannot be read now.
    """
    adapter, found = Files(data), Findings()
    scenes = adapter.scenes(ALL, None)
    found.lines += _counts(adapter, scenes)
    _check_prompts(adapter, found)
    missing = _check_files(adapter, scenes, found)
    sample = scenes[0].samples[0]
    if missing.isdisjoint(sample.input_paths + sample.truth_paths):
        _check_sample(adapter, sample, found)
    return found


def _counts(adapter: Files, scenes: list[Scene]) -> Iterator[str]:
    """Yield lines with the numbers of samples, clouds and images, by scene and camera."""
    samples = [sample for scene in scenes for sample in scene.samples]
    taxonomy = adapter.taxonomy()
    yield f"{adapter.list}: {_many(len(samples), 'sample')}, {_many(len(scenes), 'scene')}"
    yield f"taxonomy {taxonomy.name}: {_many(len(taxonomy.classes), 'class', 'classes')}, {', '.join(taxonomy.names)}"
    for scene in scenes:
        cameras = Counter(camera.channel for sample in scene.samples for camera in sample.cameras)
        clouds = sum(sample.cloud_path is not None for sample in scene.samples)
        images = ", ".join(f"{name} {count:,}" for name, count in cameras.items())
        yield f"scene {scene.name}: {_many(len(scene.samples), 'sample')}, {_many(clouds, 'cloud')}; images of {images}"


def shortened(line: str) -> str:
    """Return a line of at most `MOST_CHARACTERS`; of a longer one, its start and its end."""
    half = MOST_CHARACTERS // 2 - 3
    return line if len(line) <= MOST_CHARACTERS else f"{line[:half]} ... {line[-half:]}"


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _check_prompts(adapter: Files, found: Findings) -> None:
    try:
        load_prompts(adapter.prompts(), adapter.taxonomy())
    except PromptsError as error:
        found.problems.append(str(error))


def _check_files(adapter: Files, scenes: list[Scene], found: Findings) -> set[str]:
    """Return the files that are missing, and report the first ones."""
    samples = [sample for scene in scenes for sample in scene.samples]
    paths = tuple(dict.fromkeys(path for sample in samples for path in sample.input_paths + sample.truth_paths))
    missing = [path for path, size in file_sizes(adapter.data, paths).items() if size is None]
    if missing:
        more = ", ..." if len(missing) > NAMED_FILES else ""
        found.problems.append(
            f"{len(missing):,} of {len(paths):,} files are missing in {adapter.data}: "
            f"{', '.join(missing[:NAMED_FILES])}{more}; {adapter.remedy_for_missing(())}"
        )
    else:
        found.lines.append(f"all {len(paths):,} files are there")
    return set(missing)


def _check_sample(adapter: Files, sample: Sample, found: Findings) -> None:
    """Read everything of one sample, judge its calibration, and draw its points over its pictures."""
    try:
        images = [read_image(adapter, camera) for camera in sample.cameras]
        for camera in sample.cameras:
            adapter.read_image_truth(camera)
            if camera.segments_path:
                read_id_picture(adapter, camera.segments_path, (camera.height_px, camera.width_px))
        if sample.cloud_path is None:
            found.lines.append(f"sample {sample.token}: {_many(len(images), 'image')}, no cloud")
            return
        cloud = adapter.read_cloud(sample)
        adapter.read_point_truth(sample, len(cloud.xyz))
    except SampleError as error:
        found.problems.append(str(error))
        return
    seen = [_points_in(camera, cloud) for camera in sample.cameras]
    found.picture = np.concatenate([draw_sheet(image, *points) for image, points in zip(images, seen, strict=True)])
    found.warnings += _suspicious_intensity(adapter, sample, cloud)
    found.warnings += _suspicious_calibration(sample, cloud, found)


def _points_in(camera: Camera, cloud: Cloud) -> tuple[Pairs, NDArray[np.float64]]:
    """Return the pairs of a cloud with the pixels of one picture at its own size, and the depth of each in metres."""
    pairs = pair_points(cloud.xyz, [camera], (camera.height_px, camera.width_px), MIN_DEPTH_M)
    depth = cloud.xyz[pairs.point].astype(np.float64) @ camera.cam_from_cloud[2, :3] + camera.cam_from_cloud[2, 3]
    return pairs, depth


def _suspicious_calibration(sample: Sample, cloud: Cloud, found: Findings) -> Iterator[str]:
    """Yield warnings about the calibration, and note how many points each picture has."""
    points, seen, parts = len(cloud.xyz), np.zeros(len(cloud.xyz), bool), []
    for camera in sample.cameras:
        pairs, _ = _points_in(camera, cloud)
        seen[pairs.point] = True
        parts.append(f"{camera.channel} {len(pairs.point):,}")
        if (error := rigid_error(camera.cam_from_cloud)) > RIGID_WARNING:
            yield (
                f"camera {camera.channel}: the rotation of cam_from_cloud is off by {error:.2g} from a rigid one; "
                "give more digits"
            )
        if not len(pairs.point):
            yield f"camera {camera.channel}: no point of the cloud lies in the image; {_direction(camera, cloud)}"
    share = seen.mean()
    found.lines.append(
        f"sample {sample.token}: {points:,} points, {seen.sum():,} ({share:.1%}) of them in images: {', '.join(parts)}"
    )
    if not seen.any():
        yield "no point lies in any image; correct the calibration, no point would get a label"
    elif share < SMALLEST_SEEN_SHARE:
        yield f"only {share:.1%} of the points lie in an image; look at the picture"


def _direction(camera: Camera, cloud: Cloud) -> str:
    """Return what to do about a camera that sees no point."""
    turned = Camera(
        *(camera.channel, camera.image_path, camera.width_px, camera.height_px, camera.intrinsics),
        cam_from_cloud=invert_rigid(camera.cam_from_cloud),
        distortion=camera.distortion,
    )
    pairs, _ = _points_in(turned, cloud)
    if len(pairs.point):
        return f"its inverse would see {len(pairs.point):,}, so the matrix may be cloud_from_cam: invert it"
    return "check that the camera frame has x right, y down, z ahead, and that the matrix is in metres"


def _suspicious_intensity(adapter: Files, sample: Sample, cloud: Cloud) -> Iterator[str]:
    """Yield a warning if intensity is not read, or is far below 1."""
    entry = cloud_entry(sample)
    if cloud.intensity is None:
        columns: dict[str, Any] = named_columns(entry, adapter.read_bytes(entry.path), entry.path)
        if "intensity" in columns:
            largest = columns["intensity"].max()
            yield f"{entry.path}: its intensity (up to {largest:g}) is not read; to use it, add intensity_max"
    elif cloud.intensity.max() < FAINT:
        yield (
            f"{entry.path}: the largest intensity is {cloud.intensity.max():.2g} of intensity_max = "
            f"{entry.intensity_max:g}; correct intensity_max if the sensor can give more"
        )

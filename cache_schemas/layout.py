"""Version 2 of the cache layout: the groups of a cache, and the name, axes and dtype of every array in them.

Axis names: S samples of the shard, I images, H x W training size, h x w CLIP grid, hf x wf SAM grid,
C classes, D and E embedding sizes of CLIP and SAM, P points, Q points of sweeps, N pairs, K instances. An integer is
a fixed size; "S+1" is one more than S. The names of the axes on disk are `ArraySpec.dimension_names`. The files of an
array are the business of `array_storage.py`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from cache_schemas.errors import LayoutError
from cache_schemas.group_path import GroupPath

SCHEMA_VERSION = 2
SCHEMA_MINOR = 2
"""The version that this code writes. Minor versions only add optional groups, arrays and fields."""

READABLE_VERSIONS = (1, SCHEMA_VERSION)

Modalities = tuple[Literal["image", "point"], ...]

MODALITIES: Modalities = ("image", "point")
"""What the samples of a cache can have. A cache of images alone has neither points nor what is made from them."""

POINT_AXES = frozenset({"P", "N", "Q", "K"})
"""The axes of points, pairs of a pixel and a point, points of sweeps, and instances of points."""

Axis = str | int
AnyArray = NDArray[Any]

POINTS_PER_CHUNK = 65_536


@dataclass(frozen=True)
class ArraySpec:
    """The contract of one array.

    `axes` are names or fixed sizes, `dtypes` the permitted ones. `chunk` is the length of an inner chunk along the
    first axis (None: the whole array is one chunk). `compressed` arrays are stored with zstd level 1; the others would
    not shrink and have only a crc32c. A group may lack an `optional` array.
    """

    axes: tuple[Axis, ...]
    dtypes: tuple[str, ...]
    meaning: str
    chunk: int | None = None
    compressed: bool = False
    optional: bool = False

    @property
    def dimension_names(self) -> list[str]:
        """The names of the axes on disk, each once: number n with the name of an axis before it is called `name.n`."""
        names = [str(axis) for axis in self.axes]
        return [name if name not in names[:number] else f"{name}.{number}" for number, name in enumerate(names)]

    @property
    def of_points(self) -> bool:
        """Whether the array has a row for each point, pair or instance."""
        return self.axes[0] in POINT_AXES


@dataclass(frozen=True)
class GroupSpec:
    """The contract of one group: its arrays by name.

    `teacher` is the name of the network that makes the arrays, or None. A shard may lack an `optional` group. Caches
    of images alone have no group `of_points`, and of other groups not the arrays of points.
    """

    arrays: Mapping[str, ArraySpec]
    optional: bool = False
    teacher: str | None = None
    of_points: bool = False

    def array_names(self, modalities: Collection[str]) -> list[str]:
        """Return the names of the arrays that a group may have in a cache of these modalities."""
        return [name for name, spec in self.arrays.items() if "point" in modalities or not spec.of_points]

    def required(self, modalities: Collection[str]) -> set[str]:
        """Return the names of the arrays that it must have."""
        return {name for name in self.array_names(modalities) if not self.arrays[name].optional}


def _per_image(*axes: Axis, dtypes: tuple[str, ...], meaning: str, compressed: bool = False) -> ArraySpec:
    return ArraySpec(("I", *axes), dtypes, meaning, chunk=1, compressed=compressed)


def _per_point(
    axis: str, *rest: Axis, dtype: str, meaning: str, compressed: bool = False, optional: bool = False
) -> ArraySpec:
    return ArraySpec((axis, *rest), (dtype,), meaning, chunk=POINTS_PER_CHUNK, compressed=compressed, optional=optional)


SHARD_GROUPS: dict[str, GroupSpec] = {
    "images": GroupSpec(
        {
            "rgb": _per_image("H", "W", 3, dtypes=("uint8",), meaning="pictures at training size"),
            "intrinsics": ArraySpec(("I", 3, 3), ("float64",), "camera matrices scaled to H x W, pixels"),
            "cam_from_cloud": ArraySpec(("I", 4, 4), ("float64",), "rigid transforms, metres"),
            "offsets": ArraySpec(("S+1",), ("int64",), "images of sample s: offsets[s]:offsets[s+1]"),
        },
    ),
    "clip": GroupSpec(
        {
            "logits": _per_image("C", "h", "w", dtypes=("float16",), meaning="cosines of patches to classes"),
            "features": ArraySpec(
                ("I", "D", "h", "w"),
                ("float16", "int8"),
                "unit-norm CLIP features of patches",
                chunk=1,
                optional=True,
            ),
            "features_scale": ArraySpec(
                ("I", "D"), ("float32",), "int8 features times this give the features", optional=True
            ),
        },
        teacher="clip",
    ),
    "sam": GroupSpec(
        {
            "mask_ids": _per_image(
                "H", "W", dtypes=("uint16",), meaning="0 = no mask; smaller masks on top", compressed=True
            ),
            "features": _per_image("hf", "wf", "E", dtypes=("int8", "float16"), meaning="valid part of the embedding"),
            "features_scale": ArraySpec(
                ("I", "E"), ("float32",), "int8 features times this give the embedding", optional=True
            ),
            "features_valid": ArraySpec(
                ("I", 2), ("uint16",), "rows and columns of features that show the image", optional=True
            ),
        },
        teacher="sam",
    ),
    "points": GroupSpec(
        {
            "xyz": _per_point("P", 3, dtype="float32", meaning="points in their sensor frame, metres"),
            "intensity": _per_point("P", dtype="float32", meaning="return strength, 0..1", optional=True),
            "colour": _per_point("P", 3, dtype="uint8", meaning="RGB of points", optional=True),
            "world_from_cloud": ArraySpec(
                ("S", 4, 4), ("float64",), "rigid transforms to the frame of the scene, metres", optional=True
            ),
            "offsets": ArraySpec(("S+1",), ("int64",), "points of sample s: offsets[s]:offsets[s+1]"),
        },
        of_points=True,
    ),
    "pairs": GroupSpec(
        {
            "point": _per_point("N", dtype="int32", meaning="index into the shard's points", compressed=True),
            "image": _per_point("N", dtype="uint16", meaning="index into the shard's images", compressed=True),
            "row": _per_point("N", dtype="uint16", meaning="pixel row at H x W", compressed=True),
            "col": _per_point("N", dtype="uint16", meaning="pixel column at H x W", compressed=True),
            "depth": ArraySpec(
                ("N",), ("float32",), "metres along the optical axis", chunk=POINTS_PER_CHUNK, optional=True
            ),
            "visible": ArraySpec(
                ("N",),
                ("uint8",),
                "1: the camera sees the point, 0: something hides it",
                chunk=POINTS_PER_CHUNK,
                compressed=True,
                optional=True,
            ),
            "offsets": ArraySpec(("S+1",), ("int64",), "pairs of sample s: offsets[s]:offsets[s+1]"),
        },
        of_points=True,
    ),
    "labels": GroupSpec(
        {
            "image_raw": _per_image("H", "W", dtypes=("uint8",), meaning="CLIP argmax, eq 1", compressed=True),
            "image": _per_image("H", "W", dtypes=("uint8",), meaning="after the vote in masks, eq 4", compressed=True),
            "point_raw": _per_point(
                "P", dtype="uint8", meaning="image_raw at the point's pixel, eq 2", compressed=True
            ),
            "point": _per_point("P", dtype="uint8", meaning="image at the point's pixel, eq 3-4", compressed=True),
            "image_confidence": ArraySpec(
                ("I", "H", "W"),
                ("uint8",),
                "255 times the confidence of image",
                chunk=1,
                compressed=True,
                optional=True,
            ),
            "point_confidence": _per_point(
                "P", dtype="uint8", meaning="255 times the confidence of point", compressed=True, optional=True
            ),
        },
    ),
    "truth": GroupSpec(
        {
            "point": _per_point("P", dtype="uint8", meaning="ground truth, for scoring only", compressed=True),
            "image": ArraySpec(
                ("I", "H", "W"), ("uint8",), "ground truth, for scoring only", chunk=1, compressed=True, optional=True
            ),
            "segments": ArraySpec(
                ("I", "H", "W"),
                ("uint16",),
                "object or stuff segment, 0 = none",
                chunk=1,
                compressed=True,
                optional=True,
            ),
        },
        optional=True,
    ),
    "sweeps": GroupSpec(
        {
            "xyz": _per_point("Q", 3, dtype="float32", meaning="points in the frame of the sample's cloud, metres"),
            "intensity": ArraySpec(
                ("Q",), ("float32",), "return strength, 0..1", chunk=POINTS_PER_CHUNK, optional=True
            ),
            "lag": _per_point("Q", dtype="float32", meaning="seconds before the sample's cloud", compressed=True),
            "offsets": ArraySpec(("S+1",), ("int64",), "points of sample s: offsets[s]:offsets[s+1]"),
        },
        optional=True,
        of_points=True,
    ),
    "instances": GroupSpec(
        {
            "point": _per_point(
                "P", dtype="uint16", meaning="instance of the point in its sample, from 1; 0 = none", compressed=True
            ),
            "extent": _per_point("K", 3, dtype="float32", meaning="sides of the box around the instance, metres"),
            "offsets": ArraySpec(("S+1",), ("int64",), "instances of sample s: offsets[s]:offsets[s+1]"),
        },
        optional=True,
        of_points=True,
    ),
    "instance_labels": GroupSpec(
        {
            "scores": _per_point("K", "C", dtype="float32", meaning="mean CLIP score of the instance's pixels"),
            "pixels": _per_point("K", dtype="uint32", meaning="pixels that see the instance"),
            "instance_raw": _per_point("K", dtype="uint8", meaning="class with the highest score", compressed=True),
            "instance": _per_point("K", dtype="uint8", meaning="class after affinity", compressed=True),
            "point": _per_point("P", dtype="uint8", meaning="label of the point", compressed=True),
        },
        optional=True,
        of_points=True,
    ),
    "time": GroupSpec(
        {
            "point": _per_point("P", dtype="uint8", meaning="label on which the keyframes agree", compressed=True),
            "point_confidence": _per_point(
                "P", dtype="uint8", meaning="255 times the confidence of point", compressed=True
            ),
            "image": _per_image(
                "H", "W", dtypes=("uint8",), meaning="label on which the keyframes agree", compressed=True
            ),
        },
        optional=True,
        of_points=True,
    ),
}
"""The groups of a shard. Each is written and sealed by one task."""

SOURCE_PREFIX = "labels."
"""A group of imported labels is called by this and the name of its source, such as `labels.corrected`."""

SOURCE_GROUP = GroupSpec(
    {"point": _per_point("P", dtype="uint8", meaning="labels of another source, imported", compressed=True)},
    optional=True,
    of_points=True,
)
"""The contract of the groups of imported labels. A shard has one for each source, or none."""

OPTIONAL_GROUPS = frozenset(name for name, group in SHARD_GROUPS.items() if group.optional)

ROOT_GROUPS: dict[str, GroupSpec] = {
    "text": GroupSpec(
        {"embeddings": ArraySpec(("C", "D"), ("float32",), "unit-norm class embeddings")},
        teacher="clip",
    ),
}
"""The groups beside `shards`, which belong to the whole cache."""


def shard_groups(modalities: Collection[str]) -> dict[str, GroupSpec]:
    """Return the groups that shards of a cache of these modalities may have."""
    return {name: spec for name, spec in SHARD_GROUPS.items() if "point" in modalities or not spec.of_points}


TEACHERS = tuple(
    dict.fromkeys(group.teacher for group in (*ROOT_GROUPS.values(), *SHARD_GROUPS.values()) if group.teacher)
)
"""The names of the networks that make groups."""

TEACHERS_GROUPS = tuple(name for name, group in {**ROOT_GROUPS, **SHARD_GROUPS}.items() if group.teacher)
"""The groups that networks make, which is expensive. All data sets of a cache have them under the same settings."""


def source_name(group: str) -> str | None:
    """Return the name of the source if a shard's group is one of imported labels, else None."""
    return group.removeprefix(SOURCE_PREFIX) or None if group.startswith(SOURCE_PREFIX) else None


def shard_group(name: str) -> GroupSpec | None:
    """Return the contract of a shard's group, be it one of imported labels; None if there is no such group."""
    return SHARD_GROUPS.get(name) if source_name(name) is None else SOURCE_GROUP


def group_spec(path: GroupPath) -> GroupSpec:
    """Return the contract of a group.

    Raises:
        LayoutError: if the contract has no such group.
    """
    spec = ROOT_GROUPS.get(path.name) if path.shard is None else shard_group(path.name)
    if spec is None:
        names = ROOT_GROUPS if path.shard is None else SHARD_GROUPS
        raise LayoutError(f"{path}: the contract has no group {path.name!r}; it has {', '.join(names)}")
    return spec

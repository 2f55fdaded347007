"""The settings that decide what is in a cache. A change of one redoes the groups whose stage names it."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cache_schemas.config_files import Settings

SETTINGS_OF_FORMAT_1 = {
    "ImageSettings": {"height", "width"},
    "ClipSettings": {"architecture", "mean", "std", "key_smoothing", "prompt_denoising", "store_features"},
    "SamSettings": {
        *("architecture", "points_per_side", "pred_iou_thresh", "stability_score_thresh", "stability_score_offset"),
        *("box_nms_thresh", "min_mask_region_area", "features"),
    },
    "PointSettings": {"min_depth_m"},
}
"""The settings of each section whose values are in the fingerprints of all caches. This list never changes."""


def shaping(section: Settings, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings of a section that enter fingerprints, JSON-ready, except those that shape nothing.

    A setting that is newer than format 1 enters only if it is not at its default, so that adding one redoes no group.
    """
    fields, always = type(section).model_fields, SETTINGS_OF_FORMAT_1.get(type(section).__name__, ())
    values = section.model_dump(mode="json", exclude=set(without))
    return {
        name: value
        for name, value in values.items()
        if name in always or getattr(section, name) != fields[name].get_default(call_default_factory=True)
    }


class ImageSettings(Settings):
    """Training size of the images.

    Attributes:
        height: rows, in pixels.
        width: columns, in pixels.
    """

    height: int = Field(224, ge=16, le=4096)
    width: int = Field(416, ge=16, le=4096)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


UNTRAINED = "untrained:"
"""How the name of weights begins that are drawn from a seed."""


class TeacherSettings(Settings):
    """Which network a teacher is.

    Attributes:
        architecture: the name of the network, of open_clip or segment_anything, or one that a package adds.
        weights: a registered name (`labelgen weights list`), a file, or `untrained:<seed>` for random weights.
    """

    architecture: str
    weights: str


class ClipSettings(TeacherSettings):
    """The CLIP teacher.

    Attributes:
        architecture: a model of open_clip, or one that a package adds. Whether it uses QuickGELU is part of its name.
        weights: a registered name (`labelgen weights list`), a file, or `untrained:<seed>` for random weights.
        mean: mean of the pictures, in 0..1, that the network was trained with, for red, green and blue. Registered
            weights know theirs; give it for a file of your own.
        std: standard deviation of the same pictures.
        key_smoothing: threshold of MaskCLIP's key smoothing, whose own value is 1.0; null turns it off.
        prompt_denoising: threshold of MaskCLIP's prompt denoising, whose own value is 0.5; null turns it off.
        store_features: also store the features of the patches, `clip/features`.
        features_dtype: how they are stored: float16, or int8 with one scale for each image and channel, which takes
            half the bytes.
        size: height and width, in pixels, to which the pictures on disk are resized for CLIP, or a number: so many
            times the training size; null: CLIP reads the pictures at training size.
        window: CLIP reads square windows of so many pixels, and the features where they overlap are averaged; null:
            the whole picture at once.
        stride: distance of neighbouring windows in pixels; null: half a window.
        attention: how the patches of the last block are mixed. `value`: not at all (MaskCLIP). `sclip`, `clearclip`,
            `naclip`: as in the papers of these names. All but `value` need a ViT.
        scope: `sam`: a patch under a mask of SAM attends to the patches of this mask alone; with `value`, to all of
            them equally.
        proxy: `sam`: the patches are mixed by the similarity of SAM's image embedding (ProxyCLIP), instead of
            `attention`.
        key_smoothing_released: threshold of key smoothing as MaskCLIP's code does it, instead of `key_smoothing`. It
            stores weighted sums of probabilities, which are not cosines.
        purification: a class leaves a picture if its patches before and after key smoothing overlap by a lower IoU
            than this (the idea of FreeCP); null turns it off.
        expert_templates: in each picture, a class keeps so many of the templates of its prompts: those of lowest
            entropy (the idea of FLOSS); null: all of them.
    """

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    key_smoothing: float | None = Field(None, gt=0, le=1)
    prompt_denoising: float | None = Field(None, gt=0, le=1)
    store_features: bool = False

    size: tuple[Annotated[int, Field(ge=14, le=4096)], Annotated[int, Field(ge=14, le=4096)]] | None = None
    window: int | None = Field(None, ge=14)
    stride: int | None = Field(None, ge=14)
    attention: Literal["value", "sclip", "clearclip", "naclip"] = "value"
    scope: Literal["none", "sam"] = "none"
    proxy: Literal["none", "sam"] = "none"
    key_smoothing_released: float | None = Field(None, gt=0, le=1)
    purification: float | None = Field(None, gt=0, le=1)
    expert_templates: int | None = Field(None, ge=1)
    features_dtype: Literal["float16", "int8"] = "float16"

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> Self:
        if self.stride is not None and (self.window is None or self.stride > self.window):
            raise ValueError(
                f"stride {self.stride} needs a window of at least so many pixels, and window is {self.window}; "
                "windows further apart would leave pixels out"
            )
        if self.proxy != "none" and self.attention != "value":
            raise ValueError(f"proxy {self.proxy} replaces attention {self.attention}; leave out one of them")
        if self.key_smoothing is not None and self.key_smoothing_released is not None:
            raise ValueError("key_smoothing and key_smoothing_released are two forms of one step; leave out one")
        return self

    @property
    def reads_sam(self) -> bool:
        """Whether the scores depend on what SAM found."""
        return self.scope == "sam" or self.proxy == "sam"


STOCK_CROP_NMS_THRESH = 0.7
"""SamAutomaticMaskGenerator's default for `crop_nms_thresh`."""


class SamSettings(TeacherSettings):
    """The SAM teacher. The thresholds have the names that SamAutomaticMaskGenerator gives them.

    Attributes:
        architecture: `vit_b`, `vit_l`, `vit_h`, `tiny`, or one that a package adds.
        weights: a registered name (`labelgen weights list`), a file, or `untrained:<seed>` for random weights.
        points_per_side: the grid of prompts has this number of points on each side.
        points_per_batch: prompts that the decoder takes at once, also of several images. This number bounds the
            memory: the largest tensors of one prompt hold 7 times 64 x 64 x 256 numbers, which is 15 MB in bf16. So
            512 prompts take 7.5 GB, in addition to at most 4 GB for the encoder of ViT-H and 1.3 GB for its weights.
            On a CPU the same prompts take twice as much, and small batches are fastest.
        pred_iou_thresh: a mask with a lower predicted IoU is dropped.
        stability_score_thresh: a mask with a lower stability score is dropped.
        stability_score_offset: how far the mask threshold is moved up and down to compute the stability score.
        box_nms_thresh: of two masks whose boxes overlap by more than this IoU, the one with the lower predicted IoU
            is dropped.
        min_mask_region_area: holes and islands of fewer pixels are filled or removed; 0: none.
        features: how the image embedding is stored: int8 with one scale for each image and channel, or float16,
            which takes twice the bytes.
        compile: fuse element-wise operations of the encoder and the decoder with torch.compile. It needs a C++
            compiler and takes about a minute in each actor before the first masks. Results change by no more than
            rounding.
    """

    points_per_side: int = Field(32, ge=1)
    points_per_batch: int = Field(512, ge=1)
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = Field(0.7, gt=0, le=1)
    min_mask_region_area: int = Field(0, ge=0)
    features: Literal["int8", "float16"] = "int8"
    compile: bool = False

    @property
    def small_region_nms_thresh(self) -> float:
        """The box threshold of the second suppression, after small regions are removed.

        The stock generator takes the larger one of its thresholds for boxes and for crops.
        """
        return max(self.box_nms_thresh, STOCK_CROP_NMS_THRESH)


class PointSettings(Settings):
    """Pixel-point pairs.

    Attributes:
        min_depth_m: a point closer to a camera gets no pixel of that camera, in metres along the optical axis.
        visibility: how pairs are found whose point the camera does not see, because something hides it. Neither labels
            nor training use them. `none`: all pairs are used, as in the papers. `zbuffer`: the other points of the
            cloud hide it. `slic`: points of the same superpixel hide it, as in Affinity3D. `depth_map`: the depth
            picture of the camera says so; for RGB-D data sets.
        zbuffer_margin_m, zbuffer_margin_share: a point is hidden if something lies in front of it by more than this
            length and by more than this share of its depth.
        slic_superpixels: about so many superpixels has a picture at training size.
        slic_margin_share: a point is hidden if its depth exceeds the least depth of the points in its superpixel by
            more than this share of it.
        depth_tolerance_m, depth_tolerance_share: a point is visible if its depth differs from that of the depth picture
            by at most the sum of this length and this share of the depth. The defaults are those of ScanNet's own
            label projection.
    """

    min_depth_m: float = Field(1.0, ge=0)
    visibility: Literal["none", "zbuffer", "slic", "depth_map"] = "none"
    zbuffer_margin_m: float = Field(0.5, ge=0)
    zbuffer_margin_share: float = Field(0.05, ge=0)
    slic_superpixels: int = Field(4800, ge=1)
    slic_margin_share: float = Field(0.2, ge=0)
    depth_tolerance_m: float = Field(0.2, ge=0)
    depth_tolerance_share: float = Field(0.01, ge=0)


class SweepSettings(Settings):
    """Clouds between keyframes, in a group of their own.

    Attributes:
        count: how many clouds before that of a sample are stored with it; 0: none, and no group `sweeps`.
    """

    count: int = Field(0, ge=0, le=20)


class VoteSettings(Settings):
    """Labels of pixels and points, from scores and masks.

    Attributes:
        vote: how the pixels of a mask choose its class. `counts`: by the number of their labels, as in the papers
            (eq 4). `mean`: by the mean of their scores.
        confidence: also store how sure each voted label is, `labels/image_confidence` and `labels/point_confidence`.
    """

    vote: Literal["counts", "mean"] = "counts"
    confidence: bool = False


class InstanceSettings(Settings):
    """Instances of points, and their labels (Affinity3D), in groups of their own.

    Attributes:
        enabled: whether the groups `instances` and `instance_labels` are made.
        sensor_height_m: height of the lidar above the ground, in metres.
        min_points: points of the smallest instance.
        steps: labels spread over similar instances by W^(t-1) with t = `steps`; 1: not at all.
        things: the classes whose instances give all their points one label; empty: all classes.
    """

    enabled: bool = False
    sensor_height_m: float = Field(1.84, gt=0)
    min_points: int = Field(20, ge=2)
    steps: int = Field(2, ge=1, le=20)
    things: tuple[str, ...] = ()


class TimeSettings(Settings):
    """Labels on which the keyframes of a shard agree, in a group of their own.

    Attributes:
        enabled: whether the group `time` is made. It needs the poses of all clouds.
        voxel_m: side of the voxels of the world in which keyframes agree, in metres.
        rounds: how often scores spread from the voxels over the masks of all keyframes and back.
    """

    enabled: bool = False
    voxel_m: float = Field(0.3, ge=0.01, le=100)
    rounds: int = Field(4, ge=0, le=20)


def in_pixels(size: Any, images: Any) -> Any:
    """Return `clip.size` as (height, width), in pixels, where it is a multiple of the training size `images`.

    What is no number, gives none, or belongs to a training size that is none, is returned as it is.
    """
    if not isinstance(size, int | float) or isinstance(size, bool) or size != size:
        return size
    height, width = (images.get("height"), images.get("width")) if isinstance(images, Mapping) else (None, None)
    if not isinstance(height, int) or not isinstance(width, int):
        return size
    try:
        return [round(size * height), round(size * width)]
    except OverflowError:
        return size


class LabelSettings(Settings):
    """All settings that decide what is in a cache: the part of the dataset, the names of files, one section a step.

    The section of a teacher has the teacher's name. A new teacher adds its section here.

    Attributes:
        dataset: the data set, which `--dataset` gives.
        version: the folder of tables to use, such as `v1.0-mini`; null: the only one that is there.
        split: the scenes, which `--split` gives.
        shard_samples: samples of a shard, at most.
        cameras: the names of the cameras to use, such as `[CAM_FRONT]`; null: all that a sample has.
        prompts: the name of a prompt file that comes with the package, or the path of your own; null: the prompts of
            the data set itself, if it has some.
        teachers: the preset of both teachers, which `--teachers` gives.
        images: the training size.
        clip: the CLIP teacher.
        sam: the SAM teacher.
        points: pairs of pixels and points.
        labels: the vote, and the confidence of labels.
        sweeps: clouds between keyframes.
        instances: instances of points, and their labels.
        time: labels on which keyframes agree.
    """

    dataset: str
    version: str | None = None
    split: str = "all"
    shard_samples: int = Field(40, ge=1, le=1000)
    cameras: tuple[str, ...] | None = Field(None, min_length=1)
    prompts: str | None
    teachers: str
    images: ImageSettings
    clip: ClipSettings
    sam: SamSettings
    points: PointSettings
    labels: VoteSettings = VoteSettings()
    sweeps: SweepSettings = SweepSettings()
    instances: InstanceSettings = InstanceSettings()
    time: TimeSettings = TimeSettings()

    @model_validator(mode="before")
    @classmethod
    def _clip_size_in_pixels(cls, settings: Any) -> Any:
        clip = settings.get("clip") if isinstance(settings, Mapping) else None
        if not isinstance(clip, Mapping) or "size" not in clip:
            return settings
        return {**settings, "clip": {**clip, "size": in_pixels(clip["size"], settings.get("images"))}}

    def of_teacher(self, name: str) -> TeacherSettings:
        """Return the section of the teacher called `name`."""
        section: TeacherSettings = getattr(self, name)
        return section

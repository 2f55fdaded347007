"""The settings that decide what is in a cache. A change of one redoes the groups whose stage names it."""

from typing import Literal

from pydantic import Field

from cache_schemas.config_files import Settings


class ImageSettings(Settings):
    """Training size of the images, in pixels."""

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

    `weights` is a registered name, a file, or `untrained:<seed>`.
    """

    architecture: str
    weights: str


class ClipSettings(TeacherSettings):
    """The CLIP teacher.

    `key_smoothing` and `prompt_denoising` are the thresholds of the two refinements of MaskCLIP, whose own values are
    1.0 and 0.5. None turns a refinement off. `store_features` also stores the features of the patches.

    `mean` and `std` are those of pictures in 0..1 that the network was trained with, for red, green and blue.
    Registered weights know theirs; for a file of your own, give both. Whether a network uses QuickGELU is part of the
    name of its `architecture`.
    """

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    key_smoothing: float | None = Field(None, gt=0, le=1)
    prompt_denoising: float | None = Field(None, gt=0, le=1)
    store_features: bool = False


STOCK_CROP_NMS_THRESH = 0.7
"""SamAutomaticMaskGenerator's default for `crop_nms_thresh`."""


class SamSettings(TeacherSettings):
    """The SAM teacher. The thresholds have the names that SamAutomaticMaskGenerator gives them.

    `features` is how the image embedding is stored: int8 with one scale for each image and channel, or float16, which
    takes twice the bytes.

    `points_per_batch` is the number of prompts that the decoder takes at once. It may take prompts of several images
    in one batch. This number bounds the memory: the largest tensors of one prompt hold 7 times 64 x 64 x 256 numbers,
    which is 15 MB in bf16. So 512 prompts take 7.5 GB, in addition to at most 4 GB for the encoder of ViT-H and 1.3 GB
    for its weights. On a CPU the same prompts take twice as much, and small batches are fastest.

    `compile` fuses element-wise operations of the encoder and the decoder with torch.compile. It needs a C++ compiler
    and takes about a minute in each actor before the first masks. Results change by no more than rounding.
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
    """Pixel-point pairs: a point closer to a camera than `min_depth_m` metres gets no pixel of that camera."""

    min_depth_m: float = Field(1.0, ge=0)


class LabelSettings(Settings):
    """All settings that decide what is in a cache: the part of the dataset, the names of files, one section a step.

    The section of a teacher has the teacher's name. A new teacher adds its section here.
    """

    dataset: str
    version: str | None = None
    split: str = "all"
    shard_samples: int = Field(40, ge=1, le=40)
    prompts: str
    teachers: str
    images: ImageSettings
    clip: ClipSettings
    sam: SamSettings
    points: PointSettings

    def of_teacher(self, name: str) -> TeacherSettings:
        """Return the section of the teacher called `name`."""
        section: TeacherSettings = getattr(self, name)
        return section

"""Settings that decide what a label is. Every field takes part in the fingerprints of the groups it shapes."""

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


class ClipSettings(Settings):
    """The CLIP teacher.

    `weights` is a registered name, a file, or `untrained:<seed>`. `key_smoothing` and `prompt_denoising` are the
    thresholds of MaskCLIP's two refinements (its own values: 1.0 and 0.5); None leaves them off.
    """

    architecture: str
    weights: str
    key_smoothing: float | None = Field(None, gt=0, le=1)
    prompt_denoising: float | None = Field(None, gt=0, le=1)
    store_features: bool = False


class SamSettings(Settings):
    """The SAM teacher, with the thresholds of the stock SamAutomaticMaskGenerator under their own names.

    `weights` is as for CLIP. `features` is how the embedding is stored: int8 with a scale per image and channel,
    or float16, which takes twice the bytes.

    `points_per_batch` is how many prompts the decoder takes at once, of as many images as it has room for, and bounds
    the memory. At the height, a prompt of a square image holds 7 times 64 x 64 x 256 numbers: its image tokens as the
    attention leaves them, picked for upscaling, and after the first step of it, and two tensors of twice that size in
    the second step. That is 15 MB in bf16: 512 prompts take 7.5 GB, besides at most 4 GB for the encoder (ViT-H; its
    weights are 1.3 GB). On a CPU it is twice that, and a few prompts at once are fastest.

    `compile` has torch.compile fuse the element-wise work of encoder and decoder. It needs a C++ compiler, takes a
    minute in each actor before the first masks, and moves no result by more than rounding.
    """

    architecture: str
    weights: str
    points_per_side: int = Field(32, ge=1)
    points_per_batch: int = Field(512, ge=1)
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = Field(0.7, gt=0, le=1)
    min_mask_region_area: int = Field(0, ge=0)
    features: Literal["int8", "float16"] = "int8"
    compile: bool = False


class PointSettings(Settings):
    """Pixel-point pairing: points nearer to a camera than `min_depth_m` metres do not pair with it."""

    min_depth_m: float = Field(1.0, ge=0)

"""SAM: automatic masks as one id a pixel, and the image embedding that the trainer aligns features to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache_schemas.errors import ConfigError
from labelgen.settings import SamSettings
from labelgen.teachers.automatic_masks import propose_masks
from labelgen.teachers.checkpoints import UNTRAINED, load_into, untrained_seed
from labelgen.teachers.image_encoder import encode
from labelgen.teachers.masks import MaskProposal, paint_ids

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor


@dataclass(frozen=True)
class SamResult:
    """What SAM says of B images.

    `mask_ids` (B, H, W) u16; `features` (B, hf, wf, 256) f16, or i8 with `features_scale` (B, 256) f32.
    """

    mask_ids: NDArray[np.uint16]
    features: NDArray[np.float16] | NDArray[np.int8]
    features_scale: NDArray[np.float32] | None


class SamTeacher:
    """A segment_anything model: automatic masks, and the embedding that they were made from."""

    def __init__(self, settings: SamSettings, device: str = "cpu") -> None:
        """Build the network and load its weights.

        Raises:
            ConfigError: if there is no such architecture.
            WeightsError: if the weights are absent or do not fit.
        """
        from segment_anything.utils.transforms import ResizeLongestSide

        self.settings = settings
        self.device = device
        self.model = build_sam(settings).to(device).eval().requires_grad_(False)
        self._transform = ResizeLongestSide(self.model.image_encoder.img_size)

    def run(self, images: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> SamResult:
        """Segment native images (H0, W0, 3), all of one size, into id maps of `size`."""
        import torch

        with torch.inference_mode():
            embeddings = self.embed(images)
            ids = [
                paint_ids(self.propose(image, embedding, size), size)
                for image, embedding in zip(images, embeddings, strict=True)
            ]
            features = self.valid_part(embeddings, images[0].shape[:2]).float().cpu().numpy()
        if self.settings.features == "float16":
            return SamResult(np.stack(ids), features.astype(np.float16), None)
        quantised, scale = quantise(features)
        return SamResult(np.stack(ids), quantised, scale)

    def embed(self, images: Sequence[NDArray[np.uint8]]) -> "Tensor":
        """Return image embeddings (B, 256, 64, 64); the encoder runs in bf16 on CUDA."""
        import torch

        resized = np.stack([self._transform.apply_image(image) for image in images])
        batch = torch.from_numpy(resized).to(self.device).permute(0, 3, 1, 2).contiguous()
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.device.startswith("cuda")):
            embeddings = encode(self.model.image_encoder, self.model.preprocess(batch))
        return embeddings.float()

    def propose(self, image: NDArray[np.uint8], embedding: "Tensor", size: tuple[int, int]) -> list[MaskProposal]:
        """Return the automatic masks, at `size`, of one native image whose embedding (256, 64, 64) is known."""
        return propose_masks(self.model, embedding, image.shape[:2], size, self.settings)

    def valid_part(self, embeddings: "Tensor", native: tuple[int, ...]) -> "Tensor":
        """Crop embeddings (B, 256, 64, 64) to the part that shows the image: (B, hf, wf, 256)."""
        resized = self._transform.get_preprocess_shape(native[0], native[1], self.model.image_encoder.img_size)
        stride = self.model.image_encoder.img_size // embeddings.shape[-1]
        rows, cols = (-(-length // stride) for length in resized)
        return embeddings[:, :, :rows, :cols].permute(0, 2, 3, 1)


def quantise(features: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return features (B, hf, wf, 256) as int8 and the scale (B, 256) that brings them back."""
    scale = np.abs(features).max(axis=(1, 2)) / np.float32(127)
    steps = np.where(scale > 0, scale, np.float32(1))
    return np.rint(features / steps[:, None, None]).astype(np.int8), scale


def build_sam(settings: SamSettings) -> "Sam":
    """Build one of the architectures and load or seed its weights.

    Raises:
        ConfigError: if there is no such architecture.
        WeightsError: if the weights are absent or do not fit.
    """
    import torch
    from segment_anything import sam_model_registry

    builders: dict[str, Callable[[], Sam]] = {
        **{name: sam_model_registry[name] for name in ("vit_b", "vit_l", "vit_h")},
        "tiny": _tiny_sam,
        "demo": demo_sam,
    }
    if settings.architecture not in builders:
        raise ConfigError(f"sam.architecture {settings.architecture!r} is none of {', '.join(builders)}")
    untrained = settings.weights.startswith(UNTRAINED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(untrained_seed(settings.weights) if untrained else 0)
        model = builders[settings.architecture]()
    if not untrained:
        load_into(model, settings.weights)
    return model


def small_sam(
    side: int,
    patch: int,
    width: int,
    heads: int,
    encoder_width: int,
    encoder_depth: int,
    global_blocks: tuple[int, ...],
) -> "Sam":
    """Return a SAM of the stock parts for images of `side` pixels in patches of `patch`, with `width` channels.

    Encoder blocks attend in windows, those in `global_blocks` over the whole image; `heads` are the decoder's.
    """
    from functools import partial

    import torch
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    grid = side // patch
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=side,
            patch_size=patch,
            embed_dim=encoder_width,
            depth=encoder_depth,
            num_heads=encoder_width // 32,
            out_chans=width,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=8,
            global_attn_indexes=global_blocks,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=width, image_embedding_size=(grid, grid), input_image_size=(side, side), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=heads, mlp_dim=4 * width),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=width,
        ),
    )


def _tiny_sam() -> "Sam":
    """Return a SAM for runs without weights: the official input size and width, two encoder blocks."""
    return small_sam(side=1024, patch=16, width=256, heads=8, encoder_width=64, encoder_depth=2, global_blocks=())


def demo_sam(side: int = 384) -> "Sam":
    """Return the SAM of the demo world, small enough to train and run without a GPU."""
    return small_sam(side=side, patch=8, width=64, heads=2, encoder_width=160, encoder_depth=6, global_blocks=(2, 5))

"""The SAM architectures by name: at which size each takes an image, and how it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cache_schemas.errors import ConfigError
from cache_schemas.extensions import find, known_names

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

OFFICIAL_SIDE_PX = 1024

EXTENSIONS = "labelgen.sam_architectures"
"""Entry point group of architectures that other packages add."""


@dataclass(frozen=True)
class SamArchitecture:
    """A SAM network without weights.

    Attributes:
        input_side_px: SAM's input is a square of this side. The longer side of an image is resized to it, and the rest
            of the square is padding.
        build: returns the network with random weights, drawn from torch's global generator.
    """

    input_side_px: int
    build: "Callable[[], Sam]"


def find_architecture(name: str) -> SamArchitecture:
    """Return the architecture that `sam.architecture` names.

    Raises:
        ConfigError: if neither the table nor an installed package has this name.
    """
    architecture = find(name, ARCHITECTURES, EXTENSIONS)
    if architecture is None:
        known = known_names(ARCHITECTURES, EXTENSIONS)
        raise ConfigError(f"sam.architecture {name!r} is none of {', '.join(known)}")
    return architecture


def build_small_sam(
    side: int,
    patch: int,
    width: int,
    heads: int,
    encoder_width: int,
    encoder_depth: int,
    global_blocks: tuple[int, ...],
) -> "Sam":
    """Build a SAM of segment_anything's own modules in any size.

    Args:
        side: side of the square input image in pixels.
        patch: side of a patch in pixels; `side` is a multiple of it.
        width: channels of the image embedding and of the decoder.
        heads: attention heads of the decoder.
        encoder_width: channels of the image encoder, 32 for each attention head.
        encoder_depth: number of encoder blocks.
        global_blocks: indices of the encoder blocks that attend over the whole image; the others attend in windows of
            8 x 8 patches.
    """
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
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]  # stock code passes it too
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


def _build_tiny_sam() -> "Sam":
    """Build a SAM for runs without weights: two encoder blocks, input and embedding as large as the official ones."""
    return build_small_sam(
        side=OFFICIAL_SIDE_PX, patch=16, width=256, heads=8, encoder_width=64, encoder_depth=2, global_blocks=()
    )


def _build_official_sam(name: str) -> "Sam":
    """Build one of segment_anything's own networks."""
    from segment_anything import sam_model_registry

    build: Callable[[], Sam] = sam_model_registry[name]
    return build()


ARCHITECTURES: dict[str, SamArchitecture] = {
    "vit_b": SamArchitecture(OFFICIAL_SIDE_PX, partial(_build_official_sam, "vit_b")),
    "vit_l": SamArchitecture(OFFICIAL_SIDE_PX, partial(_build_official_sam, "vit_l")),
    "vit_h": SamArchitecture(OFFICIAL_SIDE_PX, partial(_build_official_sam, "vit_h")),
    "tiny": SamArchitecture(OFFICIAL_SIDE_PX, _build_tiny_sam),
}

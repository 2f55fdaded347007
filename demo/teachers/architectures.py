"""The network architectures of the demo's teachers."""

from typing import TYPE_CHECKING

from labelgen.teachers.sam.architectures import SamArchitecture, build_small_sam

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

SIDE_PX = 384


def build_demo_sam(side: int = SIDE_PX) -> "Sam":
    """Build the SAM of the demo world, small enough to train and run without a GPU."""
    return build_small_sam(
        side=side, patch=8, width=64, heads=2, encoder_width=160, encoder_depth=6, global_blocks=(2, 5)
    )


SAM = SamArchitecture(SIDE_PX, build_demo_sam)

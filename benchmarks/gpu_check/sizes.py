"""How large each measurement is: `full` on a GPU, `tiny` to rehearse the script on a CPU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The size of each stage.

    Attributes:
        sam: SAM architectures, measured with random weights.
        compiled: whether SAM is also measured with torch.compile.
        points_per_side: SAM's grid of prompts; None keeps the default of 32.
        pictures, rounds: pictures in a call, and how often each call is timed.
        agreement_pictures: pictures on which bf16 and fp32 are compared with the stock generator.
        prompts_by_memory_gb: `sam.points_per_batch` that is meant for a GPU with so many GB.
        clip_batches: batch sizes of CLIP.
        dense_clip: CLIP architectures whose windows and attention within masks are measured, with random weights.
        networks: `--set` values for the trainer's step; `step_samples` clouds a step, `steps` timed steps.
        curve_steps: steps of the demo's recipe, at least, whose loss curves are compared between devices.
        sparse_networks: 3D networks whose results are compared between devices.
        scenes: demo scenes that stage `run` labels.
    """

    sam: tuple[str, ...]
    compiled: bool
    points_per_side: int | None
    pictures: int
    rounds: int
    agreement_pictures: int
    prompts_by_memory_gb: dict[int, int]
    clip_batches: tuple[int, ...]
    dense_clip: tuple[str, ...]
    networks: tuple[str, ...]
    step_samples: int
    steps: int
    curve_steps: int
    sparse_networks: tuple[str, ...]
    scenes: int


FULL = Sizes(
    sam=("vit_h", "vit_b"),
    compiled=True,
    points_per_side=None,
    pictures=6,
    rounds=3,
    agreement_pictures=24,
    prompts_by_memory_gb={16: 512, 24: 1024},
    clip_batches=(1, 6, 24, 48, 96),
    dense_clip=("ViT-B-16-quickgelu", "ViT-L-14-quickgelu"),
    networks=("networks.image=deeplabv3-resnet50", "networks.cloud=minkunet34", "networks.voxel_m=0.1"),
    step_samples=4,
    steps=10,
    curve_steps=50,
    sparse_networks=("small", "minkunet34"),
    scenes=5,
)

TINY = Sizes(
    sam=("tiny",),
    compiled=False,
    points_per_side=2,
    pictures=1,
    rounds=1,
    agreement_pictures=2,
    prompts_by_memory_gb={16: 4},
    clip_batches=(1, 2),
    dense_clip=("tiny-vit-16",),
    networks=("networks.image=small", "networks.image_weights=null", "networks.cloud=small", "networks.voxel_m=0.3"),
    step_samples=1,
    steps=2,
    curve_steps=12,
    sparse_networks=("small",),
    scenes=1,
)

SIZES = {"full": FULL, "tiny": TINY}

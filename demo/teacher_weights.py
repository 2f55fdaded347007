"""The weights of the demo's teachers. setup.cfg registers each as an entry point."""

from pathlib import Path

from labelgen.weights import ShippedWeights

FOLDER = Path(__file__).parent / "weights"

CLIP_WEIGHTS = ShippedWeights(
    FOLDER / "demo-clip.safetensors",
    "abd4fdb3dab74abb3ee51ed1a0b47c74a390ee1bc1faca2d8fad1c365836d8aa",
    "CLIP of the demo world, of no use elsewhere",
    "demo-vit-16",
    datasets=("demo",),
)
SAM_WEIGHTS = ShippedWeights(
    FOLDER / "demo-sam.safetensors",
    "6cf82559342c5dfe6c65dcd62c814a02b73e9c365f375bcab05c437c54b4c656",
    "SAM of the demo world, of no use elsewhere",
    "demo",
    datasets=("demo",),
)

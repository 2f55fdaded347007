"""nuImages."""

from pathlib import Path

from labelgen.datasets.declaration import Dataset
from labelgen.datasets.nuimages.adapter import NuImages
from labelgen.licences import NUSCENES

DATASET = Dataset(
    adapter=NuImages,
    settings=Path(__file__).with_name("settings.yaml"),
    licence=NUSCENES,
    citation="Caesar et al., nuScenes: A multimodal dataset for autonomous driving, CVPR 2020",
)

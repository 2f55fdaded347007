"""nuScenes."""

from pathlib import Path

from labelgen.datasets.declaration import Dataset
from labelgen.datasets.nuscenes.adapter import NuScenes
from labelgen.licences import NUSCENES

DATASET = Dataset(
    adapter=NuScenes,
    settings=Path(__file__).with_name("settings.yaml"),
    licence=NUSCENES,
    citation="Caesar et al., nuScenes: A multimodal dataset for autonomous driving, CVPR 2020",
)

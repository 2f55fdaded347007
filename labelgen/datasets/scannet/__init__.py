"""ScanNet."""

from pathlib import Path

from labelgen.datasets.declaration import Dataset
from labelgen.datasets.scannet.adapter import ScanNet
from labelgen.licences import SCANNET

DATASET = Dataset(
    adapter=ScanNet,
    settings=Path(__file__).with_name("settings.yaml"),
    top_view_reach_m=10.0,
    smallest_seen_share=0.2,
    licence=SCANNET,
    citation="Dai et al., ScanNet: Richly-annotated 3D Reconstructions of Indoor Scenes, CVPR 2017",
)

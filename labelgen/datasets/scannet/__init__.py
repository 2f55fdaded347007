"""ScanNet."""

from pathlib import Path

from labelgen.datasets.declaration import Dataset
from labelgen.datasets.scannet.adapter import ScanNet

DATASET = Dataset(
    adapter=ScanNet,
    settings=Path(__file__).with_name("settings.yaml"),
    top_view_reach_m=10.0,
    smallest_seen_share=0.2,
)

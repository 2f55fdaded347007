"""nuScenes."""

from pathlib import Path

from labelgen.datasets.declaration import Dataset
from labelgen.datasets.nuscenes.adapter import NuScenes

DATASET = Dataset(adapter=NuScenes, settings=Path(__file__).with_name("settings.yaml"))

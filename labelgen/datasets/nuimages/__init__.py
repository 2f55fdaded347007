"""nuImages."""

from pathlib import Path

from labelgen.datasets.declaration import Dataset
from labelgen.datasets.nuimages.adapter import NuImages

DATASET = Dataset(adapter=NuImages, settings=Path(__file__).with_name("settings.yaml"))

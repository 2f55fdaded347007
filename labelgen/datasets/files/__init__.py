"""A user's own data: pictures and clouds that a JSON Lines file lists."""

from pathlib import Path

from labelgen.datasets.declaration import Dataset
from labelgen.datasets.files.adapter import Files

DATASET = Dataset(adapter=Files, settings=Path(__file__).with_name("settings.yaml"))

"""SemanticKITTI."""

from pathlib import Path

from labelgen.datasets.declaration import Dataset
from labelgen.datasets.semantickitti.adapter import SemanticKitti

DATASET = Dataset(adapter=SemanticKitti, settings=Path(__file__).with_name("settings.yaml"))

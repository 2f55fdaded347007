"""SemanticKITTI."""

from pathlib import Path

from labelgen.datasets.declaration import Dataset
from labelgen.datasets.semantickitti.adapter import SemanticKitti
from labelgen.licences import SEMANTIC_KITTI

DATASET = Dataset(
    adapter=SemanticKitti,
    settings=Path(__file__).with_name("settings.yaml"),
    licence=SEMANTIC_KITTI,
    citation="Behley et al., SemanticKITTI: A Dataset for Semantic Scene Understanding of LiDAR Sequences, ICCV 2019",
)

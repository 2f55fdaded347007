"""Dataset adapters: raw files in, `Sample` records out. `ADAPTERS` lists them by name."""

from labelgen.datasets.adapter import Adapter
from labelgen.datasets.demo import Demo
from labelgen.datasets.nuscenes import NuScenes

ADAPTERS: dict[str, type[Adapter]] = {"demo": Demo, "nuscenes": NuScenes}

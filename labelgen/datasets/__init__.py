"""Data set adapters: raw files in, `Sample` records out.

`nuscenes` is ours. Another package adds an adapter with an entry point in the group `labelgen.adapters`.
"""

from cache_schemas.errors import ConfigError
from cache_schemas.extensions import find, known_names
from labelgen.datasets.adapter import Adapter
from labelgen.datasets.nuscenes import NuScenes

ADAPTERS: dict[str, type[Adapter]] = {"nuscenes": NuScenes}
EXTENSIONS = "labelgen.adapters"


def adapter_class(dataset: str) -> type[Adapter]:
    """Return the adapter of a data set.

    Raises:
        ConfigError: if there is no data set of this name; the message lists all names.
    """
    adapter = find(dataset, ADAPTERS, EXTENSIONS)
    if adapter is None:
        raise ConfigError(f"no dataset {dataset!r}; choose {', '.join(known_names(ADAPTERS, EXTENSIONS))}")
    return adapter

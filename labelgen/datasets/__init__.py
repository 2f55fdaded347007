"""Data sets: each is a package with its declaration `DATASET`, and the adapter that reads its raw files.

Another package adds a data set with an entry point in the group `labelgen.datasets`.
"""

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from cache_schemas.extensions import find, known_names

if TYPE_CHECKING:  # numpy and pydantic are not imported: `labelgen run --help` lists the names
    from labelgen.datasets.declaration import Dataset

EXTENSIONS = "labelgen.datasets"

OWN = {
    name: EntryPoint(name, f"labelgen.datasets.{name}:DATASET", EXTENSIONS)
    for name in ("files", "nuimages", "nuscenes", "scannet", "semantickitti")
}
"""Our data sets by name. A data set is imported when it is used."""


def find_dataset(name: str) -> "Dataset":
    """Return the declaration of a data set.

    Raises:
        ConfigError: if there is no data set of this name; the message lists all names.
    """
    if name in OWN:
        own: Dataset = OWN[name].load()
        return own
    other: Dataset | None = find(name, {}, EXTENSIONS)
    if other is None:
        from cache_schemas.errors import ConfigError

        raise ConfigError(f"no dataset {name!r}; choose {', '.join(dataset_names())}")
    return other


def dataset_names() -> list[str]:
    """Return the names of all data sets, sorted."""
    return known_names(OWN, EXTENSIONS)

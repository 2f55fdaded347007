"""What data sets declare for the audit: how far a top view reaches, and how few points cameras may see."""

from cache_schemas.errors import ConfigError
from labelgen.datasets import find_dataset
from labelgen.datasets.declaration import Dataset


def top_view_reach_m(dataset: str) -> float:
    """Return how far a top view of a data set shows points from the middle along x and y, in metres."""
    return (_find(dataset) or Dataset).top_view_reach_m


def smallest_seen_share(dataset: str) -> float:
    """Return the share of its points that the cameras of a data set see at least."""
    return (_find(dataset) or Dataset).smallest_seen_share


def _find(dataset: str) -> Dataset | None:
    """Return the declaration of a data set; None, for the defaults, if it is not installed here."""
    try:
        return find_dataset(dataset)
    except ConfigError:
        return None

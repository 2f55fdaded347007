"""What a data set declares about itself. No other module tests the name of a data set."""

from dataclasses import dataclass
from pathlib import Path

from labelgen.datasets.adapter import Adapter
from labelgen.licences import Licence


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        adapter: reads its raw files.
        settings: the YAML file with the settings of `labelgen run --dataset <name>`: prompts, training size, least
            depth, visibility rule, pools.
        top_view_reach_m: top views show points up to this far from the middle along x and y, in metres.
        smallest_seen_share: the audit warns if cameras see a smaller share of the points.
        licence: that of its files; None where it is not known, as that of a user's own.
        citation: the publication that describes it; empty if there is none.
    """

    adapter: type[Adapter]
    settings: Path
    top_view_reach_m: float = 50.0
    smallest_seen_share: float = 0.05
    licence: Licence | None = None
    citation: str = ""

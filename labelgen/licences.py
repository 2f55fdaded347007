"""Licences of data sets and of weights, as their owners state them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """A licence.

    Attributes:
        name: what it is called.
        url: where its text is.
        hub_id: its identifier in the front matter of cards of the Hub; `other` where the Hub has none.
        condition: a further condition, as a sentence; empty if there is none.
    """

    name: str
    url: str
    hub_id: str = "other"
    condition: str = ""


NUSCENES = Licence(
    "CC BY-NC-SA 4.0",
    "https://www.nuscenes.org/terms-of-use",
    "cc-by-nc-sa-4.0",
    "The terms of use of nuScenes apply too.",
)
"""The licence of nuScenes and nuImages."""

SEMANTIC_KITTI = Licence(
    "CC BY-NC-SA 4.0",
    "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    "cc-by-nc-sa-4.0",
    "The pictures and clouds are those of KITTI, which are under CC BY-NC-SA 3.0.",
)

SCANNET = Licence(
    "ScanNet terms of use",
    "http://kaldir.vc.in.tum.de/scannet/ScanNet_TOS.pdf",
    condition="Whoever gets the data must accept the terms of use first.",
)

MIT_OF_CLIP = Licence("MIT", "https://github.com/openai/CLIP/blob/main/LICENSE", "mit")

APACHE_OF_SAM = Licence(
    "Apache 2.0", "https://github.com/facebookresearch/segment-anything/blob/main/LICENSE", "apache-2.0"
)

"""The table of formats for the labels of points."""

from cache_schemas.errors import LabelFileError
from cache_schemas.label_files.nuscenes_lidarseg import NuscenesLidarseg
from cache_schemas.label_files.official_ids import OfficialIds, official_ids
from cache_schemas.label_files.point_format import PointFormat
from cache_schemas.label_files.pointcept import NO_LABEL, Pointcept
from cache_schemas.label_files.scannet import Scannet
from cache_schemas.label_files.semantickitti import Semantickitti
from cache_schemas.taxonomy import Taxonomy

OFFICIAL: dict[str, type[PointFormat]] = {own.name: own for own in (NuscenesLidarseg, Semantickitti, Scannet)}
"""Formats with ids for the classes of one taxonomy."""

POINT_FORMATS: dict[str, type[PointFormat]] = {**OFFICIAL, Pointcept.name: Pointcept}
"""All formats for the labels of points."""


def point_format(name: str, taxonomy: Taxonomy) -> PointFormat:
    """Return a format of `POINT_FORMATS` for the classes of a taxonomy.

    Raises:
        LabelFileError: if the format has no ids for the taxonomy.
    """
    if name in OFFICIAL:
        return OFFICIAL[name](official_ids(name, taxonomy))
    own = OfficialIds(tuple((label,) for label in range(len(taxonomy.classes))), (NO_LABEL,))
    return POINT_FORMATS[name](own)


def usual_format(taxonomy: Taxonomy) -> PointFormat:
    """Return the official format of a taxonomy, or Pointcept's where there is none."""
    for name in OFFICIAL:
        try:
            return point_format(name, taxonomy)
        except LabelFileError:
            continue
    return point_format(Pointcept.name, taxonomy)

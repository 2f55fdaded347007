"""List the groups of arrays that stages make, with what a report counts of them."""

from dataclasses import dataclass

from cache_schemas.layout import SOURCE_GROUP, SOURCE_PREFIX
from labelgen.inspection.report import Report
from labelgen.stages import STAGES


@dataclass(frozen=True)
class GroupRow:
    """A group: what it holds, in how many shards it is sealed (None if the cache has it once), bytes on disk."""

    name: str
    description: str
    sealed: int | None
    stored_bytes: int


def group_rows(report: Report) -> list[GroupRow]:
    """Return a row for each stage, in the order of the layout, then for each source of imported labels."""
    rows = [
        GroupRow(
            name=stage.name,
            description=stage.description,
            sealed=None if stage.at_root else report.groups_sealed.get(stage.name, 0),
            stored_bytes=sum(size for array, size in report.bytes.items() if array.startswith(f"{stage.name}/")),
        )
        for stage in STAGES.values()
    ]
    sources = {name: sealed for name, sealed in report.groups_sealed.items() if name.startswith(SOURCE_PREFIX)}
    return rows + [
        GroupRow(name, SOURCE_GROUP.arrays["point"].meaning, sealed, report.bytes.get(f"{name}/point", 0))
        for name, sealed in sources.items()
    ]

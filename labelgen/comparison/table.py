"""Write compared labels as text."""

from collections.abc import Iterator
from io import StringIO

from rich import box
from rich.console import Console
from rich.filesize import decimal as file_size
from rich.table import Column, Table

from cache_schemas.names import printable
from labelgen.comparison.counting import ComparedLabels, TargetCounts, describe, scores_of
from labelgen.inspection.formatting import percent

UNITS = {"image": "pixels", "point": "points"}


def render(found: ComparedLabels, width: int) -> str:
    """Return a table for pixels and one for points, as text of so many columns."""
    console = Console(file=StringIO(), width=width, highlight=False, markup=False, emoji=False)
    console.print(describe(found))
    for table in _tables(found):
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().rstrip()


def _tables(found: ComparedLabels) -> Iterator[Table]:
    groups = {cache.labels for cache in found.caches}
    kind = "voted labels" if groups == {"labels"} else "labels"
    for target in found.caches[0].targets:
        unit = UNITS[target]
        columns = ("mIoU", "accuracy", "coverage", "calibration\nerror", "mIoU,\ncommon", "accuracy,\ncommon")
        table = Table(
            Column("cache", overflow="fold"),
            Column("preset", overflow="fold"),
            *(
                Column(name, justify="right", no_wrap=True)
                for name in (*columns, "labels\na sample", "all\na sample", "work\na sample")
            ),
            title=f"{kind} of {unit}; common: {unit} with a label in all rows",
            title_justify="left",
            title_style="",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
        )
        for cache in found.caches:
            sizes = (file_size(round(size)) for size in (cache.label_bytes, cache.bytes))
            work = "-" if cache.seconds is None else f"{cache.seconds:.2f} s"
            name = printable(cache.url) if len(groups) == 1 else f"{printable(cache.url)} {cache.labels}"
            table.add_row(name, cache.preset, *_cells(cache.targets[target]), *sizes, work)
        yield table


def _cells(counts: TargetCounts) -> Iterator[str]:
    own, common = scores_of(counts.own), scores_of(counts.common)
    yield percent(own.miou if own else None)
    yield percent(own.accuracy if own else None)
    yield percent(counts.coverage if counts.elements else None)
    yield percent(counts.calibration.error if counts.calibration else None)
    yield percent(common.miou if common else None)
    yield percent(common.accuracy if common else None)

"""The card of a cache for people: Markdown with the front matter that the Hub reads."""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.filesize import decimal as file_size

from cache_schemas.card_files import MARKER
from cache_schemas.names import printable
from labelgen.card.facts import CardFacts
from labelgen.inspection.formatting import percent

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""The Hub's names of numbers of samples, each with the number below which it holds."""


def render_readme(facts: CardFacts) -> str:
    """Return the card as Markdown."""
    environment = Environment(
        loader=PackageLoader("labelgen.card", "."),
        autoescape=False,  # Markdown, not HTML; `cell` escapes what comes from a cache
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    settings = yaml.safe_dump(facts.settings, sort_keys=False, allow_unicode=True)
    environment.filters |= {"cell": _cell, "percent": percent, "size": file_size}
    return environment.get_template("card.md.jinja").render(
        facts=facts,
        report=facts.report,
        statistics=facts.statistics,
        front_matter=yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True),
        marker=MARKER.format(digest=facts.digest),
        settings=settings,
        fence="`" * max(3, 1 + max(map(len, re.findall("`+", settings)), default=0)),
        software=", ".join(f"{name} {version}" for name, version in facts.manifest.software.items()),
    )


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    samples = facts.report.samples.labelled
    tags = ["pseudo-labels", "zarr", "croissant", "label-free"]
    return {
        "pretty_name": facts.title,
        **dict(_licence_fields(facts)),
        "annotations_creators": ["machine-generated"],
        "task_categories": ["image-segmentation"],
        "size_categories": [next((name for most, name in SIZES if samples < most), "n>1M")],
        "tags": [*tags, *(["lidar", "point-cloud"] if facts.has_points else [])],
    }


def _licence_fields(facts: CardFacts) -> Iterator[tuple[str, str]]:
    """Yield the fields about the licence: `other` with a name and a link where the Hub has no identifier for it."""
    if None in facts.licences:
        yield "license", "unknown"
        return
    known = [licence for licence in facts.licences if licence]
    if len(known) == 1 and known[0].hub_id != "other":
        yield "license", known[0].hub_id
        return
    yield "license", "other"
    yield "license_name", "; ".join(licence.name for licence in known)
    if links := [licence.url for licence in known if licence.url]:
        yield "license_link", links[0]


def _cell(text: object) -> str:
    """Return a text as it can stand in a cell of a table: names of a cache must not become markup."""
    escaped = re.sub(r"([\\|\[\]*])", r"\\\1", printable(" ".join(str(text).split())))
    return escaped.replace("<", "&lt;").replace("`", "'")

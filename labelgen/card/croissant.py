"""The card of a cache for programs: Croissant 1.0, which is JSON-LD about data sets for machine learning."""

import hashlib
import json
import re
from typing import Any

from cache_schemas.array_storage import METADATA
from cache_schemas.cache_files import files_at
from labelgen.card.facts import CardFacts

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "conformsTo": "dct:conformsTo",
    **{
        term: f"cr:{term}"
        for term in (
            *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet"),
            *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
            "transform",
        )
    },
}
"""The terms of the standard, by their short names."""

TEXT, NUMBER, SHARE = "sc:Text", "sc:Integer", "sc:Float"


def render_croissant(facts: CardFacts) -> str:
    """Return the card as JSON-LD."""
    return json.dumps(describe(facts), indent=2, ensure_ascii=False) + "\n"


def describe(facts: CardFacts) -> dict[str, Any]:
    """Return the card as a JSON-LD object: the data set, its files, and records of classes, arrays and sources."""
    licences = [f"{own.name} ({own.url})" if own.url else own.name for own in facts.licences if own]
    citations = [source.citation for source in facts.sources if source.citation]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": re.sub(r"[^A-Za-z0-9]+", "-", facts.title).strip("-"),
        "description": (
            f"{facts.title}: {facts.report.samples.labelled:,} samples, labelled by CLIP and SAM without people, in a "
            "Zarr v3 cache with what training needs. README.md says how good the labels are."
        ),
        "license": licences or ["not stated"],
        "citeAs": "; ".join(dict.fromkeys(citations)) or "no publication",
        "datePublished": facts.written.isoformat(),
        "version": facts.format_version,
        "identifier": f"sha256:{facts.digest}",
        "keywords": ["pseudo labels", "semantic segmentation", "zarr", *facts.manifest.datasets],
        "rai:machineAnnotationTools": [
            f"{own.name}: {own.architecture}, weights {own.weights}, SHA-256 {own.sha256 or 'none (untrained)'}"
            for own in facts.teachers
        ],
        "rai:dataLimitations": [*facts.faults, *(f"left out, {n}x {why}" for why, n in facts.left_out.items())],
        "distribution": _files(facts),
        "recordSet": [_classes(facts), _arrays(facts), _sources(facts)],
    }


def _files(facts: CardFacts) -> list[dict[str, Any]]:
    """Return the root document of the cache, and for each array the files with its values."""
    root = files_at(facts.report.cache).content(METADATA)
    manifest = {
        "@type": "cr:FileObject",
        "@id": "manifest",
        "name": METADATA,
        "description": "What the cache holds: its attributes are the manifest.",
        "contentUrl": METADATA,
        "contentSize": f"{len(root)} B",
        "encodingFormat": "application/json",
        "sha256": hashlib.sha256(root).hexdigest(),
    }
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": f"files-{array.path.replace('/', '-')}",
            "name": array.path,
            "description": f"{array.meaning}; axes {array.axes}, {array.dtypes}; one Zarr v3 array a shard",
            "encodingFormat": "application/octet-stream",
            "includes": f"{array.path}/**" if array.path.startswith("text/") else f"shards/*/{array.path}/**",
        }
        for array in facts.arrays
    ]
    return [manifest, *sets]


def _classes(facts: CardFacts) -> dict[str, Any]:
    types = {"id": NUMBER, "name": TEXT, "colour": TEXT, "pixel_share": SHARE, "point_share": SHARE}
    rows = [
        {
            "id": own.number,
            "name": own.name,
            "colour": "#" + "".join(f"{part:02x}" for part in own.colour),
            "pixel_share": own.pixel_share,
            "point_share": own.point_share,
        }
        for own in facts.classes
    ]
    return _records("classes", "The classes; the id is the number in label arrays, 255 is no label.", types, rows)


def _arrays(facts: CardFacts) -> dict[str, Any]:
    types = {"path": TEXT, "axes": TEXT, "dtype": TEXT, "meaning": TEXT, "bytes": NUMBER}
    rows = [
        {"path": own.path, "axes": own.axes, "dtype": own.dtypes, "meaning": own.meaning, "bytes": own.bytes}
        for own in facts.arrays
    ]
    return _records("arrays", "The arrays of a shard, and their bytes in all shards.", types, rows)


def _sources(facts: CardFacts) -> dict[str, Any]:
    types = {"dataset": TEXT, "version": TEXT, "split": TEXT, "scenes": NUMBER, "samples": NUMBER, "licence": TEXT}
    rows = [
        {
            "dataset": own.dataset,
            "version": own.version,
            "split": own.split,
            "scenes": own.scenes,
            "samples": own.samples,
            "licence": own.licence.name if own.licence else "not stated",
        }
        for own in facts.sources
    ]
    return _records("sources", "The parts of data sets that the cache holds.", types, rows)


def _records(name: str, description: str, types: dict[str, str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a record set whose records are in the card itself."""
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "key": {"@id": f"{name}/{next(iter(types))}"},
        "field": [
            {"@type": "cr:Field", "@id": f"{name}/{field}", "name": field, "description": field, "dataType": own_type}
            for field, own_type in types.items()
        ],
        "data": [{f"{name}/{field}": value for field, value in row.items()} for row in rows],
    }

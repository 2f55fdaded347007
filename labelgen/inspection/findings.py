"""The audit's report as one JSON-ready object: provenance, verdict, tables, what stands out, where to look."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cache_schemas.documents import CacheManifest
from cache_schemas.scoring import json_number, score
from cache_schemas.store import Cache
from labelgen.inspection.diagnosis import diagnose
from labelgen.inspection.inventory import Inventory, take_inventory
from labelgen.inspection.measures import MEASURES, Row, confusion, measure, moved_share, share
from labelgen.inspection.oddities import odd_shards
from labelgen.inspection.selection import Selection, survey_selection
from labelgen.inspection.statistics import MASK_SHARES, SEGMENT_SHARES, Counts, Statistics
from labelgen.inspection.survey import Survey
from labelgen.inspection.words import percent

KINDS = {"raw": "raw", "refined": "voted"}
"""Labels before and after the vote: their key in the report, and in the names of `Statistics`."""

LISTED_SAMPLES = 50
"""The report lists so many samples, worst first."""

_MAIN_CLASS = 0.6
_FEW = 0.05
_FEW_MASKED = 0.2


def inspect_cache(url: str, selection: Selection | None = None) -> dict[str, Any]:
    """Return everything that `labelgen inspect` reports, as one JSON-ready object; see docs/reference/inspect-json.md for its keys.

    Raises:
        CacheError: if there is no readable cache at `url`, or the selection names what is not in it.
    """
    cache, manifest = Cache.open(url)
    inventory = take_inventory(cache, manifest)
    survey, ranked = survey_selection(url, manifest, inventory.finished, selection or Selection())
    names = manifest.taxonomy.names
    found = {
        **_provenance(url, manifest, inventory.untrained),
        "selection": selection.to_dict() if selection else None,
        **inventory.to_dict(),
        "problems": [problem.to_dict() for problem in inventory.broken],
        "damaged": [{"shard": key, "message": message} for key, message in sorted(survey.damaged.items())],
        **(_statistics(survey.total, names) if survey.total else {}),
        "ranked": len(ranked),
        **_rows(survey, ranked, names),
        "suspicious": [asdict(oddity) for oddity in odd_shards(survey.shards)],
        "classes": [entry.to_dict() for entry in diagnose(survey.total, survey.shards, names)] if survey.total else [],
        "bytes": inventory.stored_bytes,
    }
    return {**found, "verdict": _verdict(found, inventory)}


def _provenance(url: str, manifest: CacheManifest, untrained: bool) -> dict[str, Any]:
    return {
        "cache": url,
        "schema_version": manifest.schema_version,
        "dataset": manifest.dataset,
        "split": manifest.split,
        "taxonomy": manifest.taxonomy.name,
        "prompts": manifest.prompts.name,
        "teachers": {**manifest.teachers.to_attrs(), "untrained": untrained},
        "config_digest": manifest.config_digest,
        "software": manifest.software,
    }


def _statistics(total: Statistics, names: Sequence[str]) -> dict[str, Any]:
    measured = {name: json_number(value) for name, value in measure(total).items()}
    patches, points = int(total.entropy.sum()), int(total.cameras.sum())
    visible = np.flatnonzero(total.mask_counts)
    return {
        "labels": {
            target: {
                "raw": _histogram(getattr(total, f"{target}_flow").sum(axis=1), names),
                "refined": _histogram(getattr(total, f"{target}_flow").sum(axis=0), names),
                "changed": json_number(moved_share(getattr(total, f"{target}_flow"))),
                "flow": getattr(total, f"{target}_flow").tolist(),
            }
            for target in ("image", "point")
        },
        "scores": {
            "patches": patches,
            "entropy": {"mean": measured["entropy"], "histogram": total.entropy.tolist()},
            "margin": {"mean": measured["margin"], "histogram": total.margin.tolist()},
        },
        "points": {
            "total": points,
            "seen": int(total.cameras[1:].sum()),
            "seen_share": measured["seen"],
            "pairs": int(total.pairs),
            "by_cameras": {"0": int(total.cameras[0]), "1": int(total.cameras[1]), "2+": int(total.cameras[2])},
            "camera_disagreement": measured["camera_disagreement"],
            "pair_agreement": measured["pair_agreement"],
        },
        "masks": {
            "images": int(total.images),
            "per_image": {
                "mean": measured["masks_per_image"],
                "min": int(visible.min(initial=len(total.mask_counts))),
                "max": int(visible.max(initial=0)),
                "histogram": total.mask_counts.tolist(),
            },
            "covered_share": measured["masked"],
            "by_share": [
                {"from": low, "to": high, "masks": int(count)}
                for low, high, count in zip(MASK_SHARES[:-1], MASK_SHARES[1:], total.mask_sizes, strict=True)
            ],
        },
        "truth": {
            "masks": _mask_agreement(total),
            "image": _agreement(total, "image", names),
            "point": _agreement(total, "point", names),
        },
    }


def _histogram(counts: Counts, names: Sequence[str]) -> dict[str, int]:
    return {**{name: int(counts[i]) for i, name in enumerate(names)}, "ignore": int(counts[-1])}


def _agreement(total: Statistics, target: str, names: Sequence[str]) -> dict[str, Any] | None:
    """Score labels against truth; elements whose label is "ignore" (points that no camera sees) are left out."""
    labelled = int(getattr(total, f"{target}_truth_voted")[:-1].sum())
    if not labelled:
        return None
    everything = int(getattr(total, f"{target}_flow").sum())
    agreement: dict[str, Any] = {"truth": labelled, "share": json_number(share(labelled, everything))}
    for kind, of in KINDS.items():
        counts = confusion(getattr(total, f"{target}_truth_{of}"))
        scores = score(counts)
        agreement[kind] = {
            **scores.to_dict(names),
            "class_accuracy": {name: json_number(value) for name, value in zip(names, scores.recall, strict=True)},
            "confusion": counts.tolist(),
        }
    return agreement


def _mask_agreement(total: Statistics) -> dict[str, Any] | None:
    """Say how well masks cover the truth's segments, as far as the id map shows them."""
    if not total.segments.any():
        return None
    sums = total.segments, total.segment_iou, total.segments_found
    return {
        **_segment_scores(*(column.sum() for column in sums)),
        "by_share": [
            {"from": least, **_segment_scores(*(column[size] for column in sums))}
            for size, least in enumerate(SEGMENT_SHARES)
        ],
    }


def _segment_scores(segments: int, iou: float, found: int) -> dict[str, Any]:
    return {
        "segments": int(segments),
        "mean_best_iou": json_number(share(iou, segments)),
        "recall_at_half": json_number(share(found, segments)),
    }


def _rows(survey: Survey, ranked: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    return {
        "by_shard": [_row(found, names) for found in survey.shards],
        "worst_samples": [_row(found, names) for found in ranked[:LISTED_SAMPLES]],
    }


def _row(found: Row, names: Sequence[str]) -> dict[str, Any]:
    return {
        "shard": found.shard,
        **({"sample": found.sample} if found.sample else {"samples": found.samples}),
        "measures": {name: json_number(value) for name, value in zip(MEASURES, found.values, strict=True)},
        "iou": {name: json_number(value) for name, value in zip(names, found.iou, strict=True) if np.isfinite(value)},
    }


def _verdict(found: Mapping[str, Any], inventory: Inventory) -> dict[str, list[str]]:
    """Return what speaks against the cache being complete, whole and plausible; nothing is said where all is well."""
    return {
        "complete": _incomplete(found),
        "whole": [*map(str, inventory.broken), *(entry["message"] for entry in found["damaged"])],
        "plausible": _implausible(found),
    }


def _incomplete(found: Mapping[str, Any]) -> list[str]:
    shards, quarantined = found["shards"], found["samples"]["quarantined"]
    reasons = {
        f"{shards['unfinished']} shards are unfinished: run again": shards["unfinished"],
        f"{shards['stale']} shards hold groups made under other settings, or from something since redone: run again": (
            shards["stale"]
        ),
        f"{quarantined} samples are quarantined: mend their files and run again": quarantined,
        "nothing is labelled yet: run `labelgen run`": not shards["sealed"],
    }
    return [reason for reason, holds in reasons.items() if holds]


def _implausible(found: Mapping[str, Any]) -> list[str]:
    if "labels" not in found:
        return ["there are no labels to judge"]
    counts = {name: n for name, n in found["labels"]["image"]["refined"].items() if name != "ignore"}
    main, pixels = max(counts, key=lambda name: counts[name]), sum(counts.values())
    absent = [name for name, count in counts.items() if not count]
    odd = {entry["shard"] for entry in found["suspicious"]}
    truth = found["truth"]["image"] or found["truth"]["point"]
    reasons = {
        "the teachers are untrained: the labels mean nothing": found["teachers"]["untrained"],
        f"{percent(share(counts[main], pixels))} of all pixels are {main}": counts[main] > _MAIN_CLASS * pixels,
        f"no pixel is ever labelled {', '.join(absent)}": absent and not found["selection"],
        f"cameras see only {percent(found['points']['seen_share'])} of the points": (
            (found["points"]["seen_share"] or 0) < _FEW
        ),
        f"masks cover only {percent(found['masks']['covered_share'])} of the pixels": (
            (found["masks"]["covered_share"] or 0) < _FEW_MASKED
        ),
        "the vote makes labels worse: accuracy falls": (
            truth and (truth["refined"]["accuracy"] or 0) < (truth["raw"]["accuracy"] or 0)
        ),
        f"{len(odd)} shards stand out, see below": odd,
    }
    return [reason for reason, holds in reasons.items() if holds]

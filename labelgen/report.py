"""The inspection of a cache as text for a terminal."""

from typing import Any


def render(found: dict[str, Any]) -> str:
    """Return the report of `inspection.inspect_cache` as text."""
    parts = [_head(found)]
    if "labels" in found:
        parts += [_overview(found), _class_table(found)]
    parts.append(_bytes(found["bytes"]))
    return "\n\n".join(parts)


def _head(found: dict[str, Any]) -> str:
    teachers, shards, samples = found["teachers"], found["shards"], found["samples"]
    lines = [
        f"{found['cache']}: {found['dataset']}, split {found['split']}, schema version {found['schema_version']}",
        f"teachers  {teachers['preset']}: CLIP {teachers['clip']['architecture']} ({teachers['clip']['weights']}), "
        f"SAM {teachers['sam']['architecture']} ({teachers['sam']['weights']})",
        f"prompts   {found['prompts']}; taxonomy {found['taxonomy']}",
        f"shards    {shards['sealed']} sealed, {shards['unfinished']} unfinished, "
        f"{shards['quarantined']} with no usable sample",
        f"samples   {samples['labelled']:,} labelled, {samples['quarantined']:,} quarantined",
    ]
    lines += [f"          {entry['sample']} ({entry['stage']}): {entry['reason']}" for entry in samples["reasons"][:10]]
    if len(samples["reasons"]) > 10:
        lines.append(f"          ... and {len(samples['reasons']) - 10} more, see --json")
    if shards["stale"]:
        lines.append(
            f"STALE     {shards['stale']} shards hold groups made under other settings, or from something "
            "since redone: run again"
        )
    if teachers["untrained"]:
        lines.insert(0, "UNTRAINED TEACHERS: these labels mean nothing; they show geometry and plumbing only")
    return "\n".join(lines)


def _overview(found: dict[str, Any]) -> str:
    points, masks = found["points"], found["masks"]
    lines = [
        f"points    {points['total']:,}, {_percent(points['seen_share'])} seen by a camera, {points['pairs']:,} pairs",
        f"masks     {masks['per_image']['mean']:.1f} an image ({masks['per_image']['min']} to "
        f"{masks['per_image']['max']}), covering {_percent(masks['covered_share'])} of the pixels",
    ]
    if segments := found["truth"]["masks"]:
        lines.append(
            f"          {segments['segments']:,} truth segments: mean best IoU {_percent(segments['mean_best_iou'])}, "
            f"recall at IoU 0.5 {_percent(segments['recall_at_half'])}"
        )
        above = 1.0
        for part in segments["by_share"]:
            lines.append(
                f"          {part['segments']:>13,} of {part['from']:.1%} to {above:.1%} of the picture: "
                f"{_percent(part['mean_best_iou'])}, recall {_percent(part['recall_at_half'])}"
            )
            above = part["from"]
    for target, unit in (("image", "pixels"), ("point", "points")):
        truth = found["truth"][target]
        if truth is None:
            lines.append(f"truth     none for {unit}")
            continue
        raw, refined = truth["raw"], truth["refined"]
        lines.append(
            f"truth     {unit}: mIoU {_percent(raw['miou'])} raw, {_percent(refined['miou'])} voted; accuracy "
            f"{_percent(raw['accuracy'])} raw, {_percent(refined['accuracy'])} voted "
            f"({refined['scored']:,} of {truth['truth']:,} with a label)"
        )
    return "\n".join(lines)


def _class_table(found: dict[str, Any]) -> str:
    """Lay out shares of labels by class, and IoU where there is truth; before -> after voting."""
    columns: list[tuple[str, dict[str, str]]] = []
    for target, unit in (("image", "pixels"), ("point", "points")):
        histograms = found["labels"][target]
        totals = {kind: sum(counts.values()) or 1 for kind, counts in histograms.items()}
        shares = {kind: {name: n / totals[kind] for name, n in counts.items()} for kind, counts in histograms.items()}
        columns.append((f"{unit} raw -> voted", _arrows(shares["raw"], shares["refined"])))
        truth = found["truth"][target]
        if truth:
            columns.append((f"{unit} IoU", _arrows(truth["raw"]["iou"], truth["refined"]["iou"])))
            columns.append(
                (f"{unit} accuracy", _arrows(truth["raw"]["class_accuracy"], truth["refined"]["class_accuracy"]))
            )
    names = list(found["labels"]["image"]["raw"])
    width = max(map(len, names))
    lines = ["  ".join([" " * width, *(f"{title:>18}" for title, _ in columns)])]
    lines += [
        "  ".join([f"{name:<{width}}", *(f"{cells.get(name, ''):>18}" for _, cells in columns)]) for name in names
    ]
    return "\n".join(lines)


def _arrows(before: dict[str, float | None], after: dict[str, float | None]) -> dict[str, str]:
    return {name: f"{_percent(before[name])} -> {_percent(after[name])}" for name in before}


def _bytes(sizes: dict[str, int]) -> str:
    total = sum(sizes.values())
    lines = [f"bytes     {_size(total)} in all"]
    lines += [f"          {_size(size):>10}  {name}" for name, size in sorted(sizes.items(), key=lambda item: -item[1])]
    return "\n".join(lines)


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"

"""The audit as text for a terminal: the verdict first, then what it rests on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from labelgen.inspection.words import number, oddity_words, percent, sample_words

_LISTED = 10
"""Rows of a list that are printed; --json has all."""

_SAMPLES = 5
"""Samples that are named."""

_BAR = " ▁▂▃▄▅▆▇█"


def render(found: Mapping[str, Any]) -> str:
    """Return the report of `findings.inspect_cache` as text."""
    parts = [_head(found)]
    if "labels" in found:
        parts += [_overview(found), _class_table(found)]
    parts += [section for section in (_suspicious(found), _diagnoses(found), _worst(found)) if section]
    if "against" in found:
        parts.append(_against(found["against"]))
    if not found["selection"]:
        parts.append(_bytes(found["bytes"]))
    return "\n\n".join(parts)


def _head(found: Mapping[str, Any]) -> str:
    teachers, shards, samples = found["teachers"], found["shards"], found["samples"]
    lines = [
        f"{found['cache']}: {found['dataset']}, split {found['split']}, schema version {found['schema_version']}",
        *_verdict(found),
        f"teachers  {teachers['preset']}: CLIP {teachers['clip']['architecture']} ({teachers['clip']['weights']}), "
        f"SAM {teachers['sam']['architecture']} ({teachers['sam']['weights']})",
        f"prompts   {found['prompts']}; taxonomy {found['taxonomy']}",
        f"shards    {shards['sealed']} sealed, {shards['unfinished']} unfinished, "
        f"{shards['quarantined']} with no usable sample",
        f"samples   {samples['labelled']:,} labelled, {samples['quarantined']:,} quarantined",
    ]
    lines += [
        f"          {entry['sample']} ({entry['stage']}): {entry['reason']}" for entry in samples["reasons"][:_LISTED]
    ]
    if len(samples["reasons"]) > _LISTED:
        lines.append(f"          ... and {len(samples['reasons']) - _LISTED} more, see --json")
    if shards["stale"]:
        lines.append(
            f"STALE     {shards['stale']} shards hold groups made under other settings, or from something "
            "since redone: run again"
        )
    if teachers["untrained"]:
        lines.insert(0, "UNTRAINED TEACHERS: these labels mean nothing; they show geometry and plumbing only")
    if found["selection"]:
        lines.append(_selected(found["selection"], len(found["worst_samples"])))
    return "\n".join(lines)


def _verdict(found: Mapping[str, Any]) -> list[str]:
    well = {
        "complete": "yes: every shard is sealed, no sample is left out",
        "whole": "yes, as far as read: documents, labels, masks, scores, pairs; `labelgen verify` reads every byte",
        "plausible": "yes: no shard is far from the others, no count is unlikely; see scores for how right labels are",
    }
    lines = []
    for question, against in found["verdict"].items():
        answers = [f"NO: {reason}" if question != "plausible" else f"LOOK: {reason}" for reason in against[:_LISTED]]
        answers += [f"    ... and {len(against) - _LISTED} more, see --json"] if len(against) > _LISTED else []
        lines += [f"{question if not i else '':<10}{answer}" for i, answer in enumerate(answers or [well[question]])]
    return lines


def _selected(selection: Mapping[str, Any], listed: int) -> str:
    words = [f"the samples {', '.join(selection['samples'])}"] if selection["samples"] else []
    words += [f"samples with {selection['class']}"] if selection["class"] else []
    words += [f"the worst {selection['worst']}"] if selection["worst"] else []
    return f"ONLY      {'; '.join(words)}: all that follows is about {'this sample' if listed == 1 else 'these'}"


def _overview(found: Mapping[str, Any]) -> str:
    points, masks, scores = found["points"], found["masks"], found["scores"]
    views, labels = points["by_cameras"], found["labels"]
    lines = [
        f"scores    entropy {number(scores['entropy']['mean'])} of 1 {_bars(scores['entropy']['histogram'])}  "
        f"lead of the best class {percent(scores['margin']['mean'])} {_bars(scores['margin']['histogram'])}",
        f"points    {points['total']:,}, {percent(points['seen_share'])} seen by a camera, {points['pairs']:,} pairs; "
        f"by 0, 1, 2 or more cameras: {views['0']:,}, {views['1']:,}, {views['2+']:,}",
        f"masks     {number(masks['per_image']['mean'], 1)} an image ({masks['per_image']['min']} to "
        f"{masks['per_image']['max']}), covering {percent(masks['covered_share'])} of the pixels",
        "          by share of the picture: "
        + ", ".join(f"{_upto(part)} {part['masks']:,}" for part in masks["by_share"]),
        f"agreement the vote changed {percent(labels['image']['changed'])} of the pixels, "
        f"{percent(labels['point']['changed'])} of the points; cameras disagree on "
        f"{percent(points['camera_disagreement'])} of the points that two see; 2D and 3D labels agree on "
        f"{percent(points['pair_agreement'])} of the pairs",
    ]
    if segments := found["truth"]["masks"]:
        lines.append(
            f"          {segments['segments']:,} truth segments: mean best IoU {percent(segments['mean_best_iou'])}, "
            f"recall at IoU 0.5 {percent(segments['recall_at_half'])}"
        )
        above = 1.0
        for part in segments["by_share"]:
            lines.append(
                f"          {part['segments']:>13,} of {part['from']:.1%} to {above:.1%} of the picture: "
                f"{percent(part['mean_best_iou'])}, recall {percent(part['recall_at_half'])}"
            )
            above = part["from"]
    for target, unit in (("image", "pixels"), ("point", "points")):
        truth = found["truth"][target]
        if truth is None:
            lines.append(f"truth     none for {unit}")
            continue
        raw, refined = truth["raw"], truth["refined"]
        lines.append(
            f"truth     {unit}: mIoU {percent(raw['miou'])} raw, {percent(refined['miou'])} voted; accuracy "
            f"{percent(raw['accuracy'])} raw, {percent(refined['accuracy'])} voted "
            f"({refined['scored']:,} of {truth['truth']:,} with a label); "
            f"{percent(truth['share'])} of all {unit} have truth"
        )
    return "\n".join(lines)


def _upto(part: Mapping[str, Any]) -> str:
    return f"to {100 * part['to']:g}%:"


def _class_table(found: Mapping[str, Any]) -> str:
    """Lay out shares of labels by class, and IoU where there is truth; before -> after voting."""
    columns: list[tuple[str, dict[str, str]]] = []
    for target, unit in (("image", "pixels"), ("point", "points")):
        histograms = {kind: found["labels"][target][kind] for kind in ("raw", "refined")}
        totals = {kind: sum(counts.values()) or 1 for kind, counts in histograms.items()}
        shares = {kind: {name: n / totals[kind] for name, n in counts.items()} for kind, counts in histograms.items()}
        columns.append((f"% of {unit}", _arrows(shares["raw"], shares["refined"])))
        truth = found["truth"][target]
        if truth:
            columns.append((f"{unit}: IoU", _arrows(truth["raw"]["iou"], truth["refined"]["iou"])))
            columns.append(
                (f"{unit}: recall", _arrows(truth["raw"]["class_accuracy"], truth["refined"]["class_accuracy"]))
            )
    only = (found["selection"] or {}).get("class")
    names = [name for name in found["labels"]["image"]["raw"] if only in (None, name)]
    return _table("raw -> voted", names, columns)


def _arrows(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> dict[str, str]:
    return {name: f"{percent(before[name])} -> {percent(after[name])}" for name in before}


def _suspicious(found: Mapping[str, Any]) -> str:
    lines = [f"  {entry['shard']}: {oddity_words(entry)}" for entry in found["suspicious"]]
    return _listed("shards that stand out", lines)


def _diagnoses(found: Mapping[str, Any]) -> str:
    only = (found["selection"] or {}).get("class")
    entries = [entry for entry in found["classes"] if only in (None, entry["name"])]
    lines = [
        f"  {entry['name']}: IoU {percent(entry['raw_iou'])} -> {percent(entry['voted_iou'])}: {entry['reason']}"
        + _where(entry)
        for entry in entries
    ]
    return _listed("classes, worst first, and why", lines)


def _where(entry: Mapping[str, Any]) -> str:
    places = [f"{shard}: {part:.0%} of all errors, most of them {mix_up}" for shard, _, part, mix_up in entry["shards"]]
    return f"; most in {places[0]}" if places else ""


def _worst(found: Mapping[str, Any]) -> str:
    lines = [f"  {entry['sample']} in {entry['shard']}: {sample_words(entry)}" for entry in found["worst_samples"]]
    return _listed("samples to look at, worst first", lines[:_SAMPLES], more=max(0, len(lines) - _SAMPLES))


def _against(against: Mapping[str, Any]) -> str:
    lines = [f"against {against['cache']}, there -> here"]
    lines += [
        f"  {name}: {_setting(values['there'])} -> {_setting(values['here'])}"
        for name, values in against["settings"].items()
    ]
    for target, unit in (("image", "pixels"), ("point", "points")):
        moved, scores = against["moved"][target], against["scores"][target]
        if moved:
            largest = ", ".join(f"{m['from']} -> {m['to']} {m['count']:,}" for m in moved["moves"][:3])
            lines.append(f"  {unit}: {percent(moved['share'])} have another label: {largest or 'none'}")
        if scores:
            miou = scores["refined"]["miou"]
            lines.append(f"  {unit}: voted mIoU {percent(miou['there'])} -> {percent(miou['here'])}")
    lines += [
        f"  {entry['shard']}: {percent(entry['image'])} of its pixels changed"
        for entry in against["by_shard"][:_LISTED]
        if entry["image"]
    ]
    reasons = Counter(entry["reason"] for entry in against["by_shard"] if entry["reason"])
    lines += [f"  {count} shards cannot be compared label by label: {reason}" for reason, count in reasons.items()]
    lines += [f"  shards only here: {len(against['only_here'])}, only there: {len(against['only_there'])}"]
    return "\n".join([*lines, "", _class_changes(against["classes"])])


def _setting(value: Any) -> str:
    return f"{value['architecture']} ({value['weights']})" if isinstance(value, Mapping) else f"{value:.40}"


def _class_changes(classes: Mapping[str, Any]) -> str:
    columns = []
    for target, unit in (("image", "pixels"), ("point", "points")):
        for what, title in (("share", f"% of {unit}"), ("iou", f"{unit}: IoU")):
            there, here = (
                {name: change[target][what][place] for name, change in classes.items()} for place in ("there", "here")
            )
            if any(value is not None for value in [*there.values(), *here.values()]):
                columns.append((title, _arrows(there, here)))
    return _table("there -> here", list(classes), columns)


def _table(title: str, names: Sequence[str], columns: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    width = max(map(len, [*names, title]))
    lines = ["  ".join([f"{title:<{width}}", *(f"{column:>18}" for column, _ in columns)])]
    lines += [
        "  ".join([f"{name:<{width}}", *(f"{cells.get(name, ''):>18}" for _, cells in columns)]) for name in names
    ]
    return "\n".join(line.rstrip() for line in lines)


def _listed(title: str, lines: Sequence[str], more: int = 0) -> str:
    if not lines:
        return ""
    more += max(0, len(lines) - 2 * _LISTED)
    return "\n".join([title, *lines[: 2 * _LISTED], *([f"  ... and {more} more, see --json"] if more else [])])


def _bytes(sizes: Mapping[str, int]) -> str:
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


def _bars(histogram: Sequence[int], width: int = 10) -> str:
    """Draw a histogram as one word."""
    step = len(histogram) // width
    sums = [sum(histogram[i * step : (i + 1) * step]) for i in range(width)]
    top = max(sums) or 1
    return "".join(_BAR[min(8, -(-8 * count // top))] for count in sums)

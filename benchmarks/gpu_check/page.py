"""The page docs/results/gpu.md, written from the stages' JSON files.

python -m benchmarks.gpu_check.page docs/results/gpu docs/results/gpu.md
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NUSCENES_PICTURES = 204_894
"""34,149 keyframes with six pictures each: train and val."""

NOT_MEASURED = "not measured"
STAGES = ("environment", "sam", "clip", "dense_clip", "training", "sparse", "run")

PUBLISHED = (
    ("SAM 2.1-L automatic masks, H100, stock", "863", "1"),
    ("SAM 2.1-L automatic masks, H100, optimised", "326", "0.99"),
    ("SAM 2.1-L automatic masks, H100, optimised further", "120", "0.98"),
)
"""Milliseconds an image and mask IoU with stock."""

Figures = dict[str, Any]


def write_page(results: Path, page: Path) -> None:
    """Write the page from the JSON files in the folder `results`; what is absent is said to be not measured."""
    stages = {stage: _read(results / f"{stage}.json") for stage in STAGES}
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(_lines(stages)) + "\n")


def _read(file: Path) -> Figures:
    return json.loads(file.read_text()) if file.is_file() else {"state": NOT_MEASURED, "seconds": None, "figures": {}}


def _lines(stages: dict[str, Figures]) -> Iterator[str]:
    figures = {stage: found["figures"] for stage, found in stages.items()}
    environment = figures["environment"]
    yield "# On a GPU"
    yield ""
    yield "`benchmarks/gpu_check.sh 12` measures all of this within 12 minutes, also on a machine without network:"
    yield "`python -m benchmarks.pack_for_gpu` packs what such a machine lacks, in transfers of less than 64 MiB."
    yield "`python -m benchmarks.gpu_check.page docs/results/gpu docs/results/gpu.md` writes this page from the"
    yield "JSON files in `docs/results/gpu`. A stage without a JSON file has no figures."
    yield ""
    yield f"Device: {environment.get('device', NOT_MEASURED)}. Packages: {_packages(environment)}."
    yield ""
    yield from _table(
        ("stage", "state", "seconds"), [(s, f["state"], _number(f["seconds"], 0)) for s, f in stages.items()]
    )
    yield from _sam(figures["sam"])
    yield from _agreement(figures["sam"])
    yield from _memory(figures["sam"])
    yield from _clip(figures["clip"])
    yield from _dense_clip(figures["dense_clip"], figures["sam"])
    yield from _projection(figures["sam"], figures["clip"])
    yield from _training(figures["training"])
    yield from _sparse(figures["sparse"])
    yield from _run(figures["run"])
    yield from _problems(figures)


def _packages(environment: Figures) -> str:
    found = environment.get("packages")
    return ", ".join(f"{name} {version}" for name, version in found.items() if version) if found else NOT_MEASURED


def _sam(sam: Figures) -> Iterator[str]:
    yield from _heading("SAM: automatic masks of a 1600 x 900 picture")
    yield "Random weights, 32 x 32 prompts, a third of the masks pass. Stock is segment_anything's generator in fp32,"
    yield "in the same process. The stages wait for the device, so their sum is more than a picture takes."
    yield ""
    rows = [
        (
            name,
            _number(found["ms_an_image"]),
            _number(found["stock_ms_an_image"]),
            _number(found["ratio"]),
            _number(found["first_call_s"]),
            ", ".join(f"{stage} {ms:.1f}" for stage, ms in found["stages_ms_an_image"].items()),
            _memory_text(found["peak_memory_gb"]),
        )
        for name, found in _measured(sam, "stages_ms_an_image")
    ]
    yield from _table(("network", "ms", "stock, ms", "ratio", "first call, s", "stages, ms", "peak memory"), rows)
    yield "Published, for comparison (another network, so only the order of magnitude compares):"
    yield ""
    yield from _table(("published", "ms", "mask IoU with stock"), PUBLISHED)


def _agreement(sam: Figures) -> Iterator[str]:
    yield from _heading("SAM: agreement with stock in fp32")
    rows = [
        (
            name.removeprefix("agreement of "),
            str(found["pictures"]),
            f"{found['masks']} / {found['stock_masks']}",
            f"{found['mean_iou']:.4f}",
            f"{100 * found['equal_pixels']:.3f} %",
        )
        for name, found in _measured(sam, "mean_iou")
    ]
    header = (
        "precision of image tokens",
        "pictures of the demo",
        "masks, ours / stock",
        "mean mask IoU",
        "equal pixels",
    )
    yield from _table(header, rows)


def _memory(sam: Figures) -> Iterator[str]:
    yield from _heading("SAM: peak memory at the settings for smaller GPUs")
    rows = [
        (
            name.removeprefix("memory on "),
            found["architecture"],
            str(found["points_per_batch"]),
            _memory_text(found["peak_memory_gb"]),
        )
        for name, found in sam.items()
        if name.startswith("memory on ") and isinstance(found, dict)
    ]
    yield from _table(("meant for", "network", "sam.points_per_batch", "peak memory"), rows)


def _clip(clip: Figures) -> Iterator[str]:
    yield from _heading("CLIP ViT-B/16: dense scores at 224 x 416")
    rows = [
        (
            name.removeprefix("batch "),
            _number(found["images_a_second"]),
            _number(found["ms_an_image"], 2),
            _memory_text(found["peak_memory_gb"]),
        )
        for name, found in _measured(clip, "images_a_second")
    ]
    yield from _table(("pictures a call", "images/s", "ms an image", "peak memory"), rows)


def _dense_clip(dense: Figures, sam: Figures) -> Iterator[str]:
    yield from _heading("CLIP: windows and attention within SAM's masks")
    yield "Random weights. The share is of the time that the first SAM network above takes for a picture."
    yield ""
    measured = _measured(dense, "ms_an_image")
    alone = {found["network"]: found["ms_an_image"] for _, found in reversed(measured) if not found["settings"]}
    teachers = [found["ms_an_image"] for _, found in _measured(sam, "stages_ms_an_image")]
    rows = [
        (
            found["network"],
            " x ".join(map(str, found["size"])),
            f"`{found['settings']}`" if found["settings"] else "-",
            _number(found["ms_an_image"], 2),
            _number(found["ms_an_image"] / alone[found["network"]]),
            f"{100 * found['ms_an_image'] / teachers[0]:.1f} %" if teachers else "-",
            _memory_text(found["peak_memory_gb"]),
        )
        for _, found in measured
    ]
    header = ("network", "picture", "settings", "ms", "times one picture", "share of SAM", "peak memory")
    yield from _table(header, rows)


def _projection(sam: Figures, clip: Figures) -> Iterator[str]:
    yield from _heading(f"Projection to nuScenes: {NUSCENES_PICTURES:,} pictures")
    best_clip = min(
        (found for _, found in _measured(clip, "images_a_second")), key=lambda f: f["ms_an_image"], default=None
    )
    found = [(name, f) for name, f in _measured(sam, "stages_ms_an_image")]
    found += [("CLIP ViT-B/16", best_clip)] if best_clip else []
    rows = [
        (
            name,
            _number(f["ms_an_image"] * NUSCENES_PICTURES / 3.6e6),
            _number(f["bytes_an_image"] * NUSCENES_PICTURES / 1e9, 0),
        )
        for name, f in found
    ]
    yield from _table(("teacher", "GPU hours", "GB before compression"), rows)


def _training(training: Figures) -> Iterator[str]:
    yield from _heading("Trainer: a step at the paper's sizes")
    step = training.get("step")
    if not isinstance(step, dict):
        yield NOT_MEASURED.capitalize() + "."
        yield ""
    else:
        yield f"Settings: `{' '.join(step['settings'])}`."
        yield ""
        yield f"A step has {step['images']:.0f} pictures and {step['points']:,.0f} points; peak memory "
        yield f"{_number(step['peak_memory_gb'])} GB."
        yield ""
        yield from _table(("part", "ms"), [(part, _number(ms)) for part, ms in step["ms"].items()])
    for name, sentence in (("throughput", _throughput), ("curves", _curves), ("resume", _resume)):
        if isinstance(found := training.get(name), dict):
            yield sentence(found)
            yield ""


def _throughput(found: Figures) -> str:
    return (
        f"`trainer fit`: {found['images_a_second']} images/s, {found['waiting_for_data_percent']} % of the time "
        f"waiting for data, peak memory {found['peak_memory_gb']} GB."
    )


def _curves(found: Figures) -> str:
    verdict = "within" if found["within_tolerance"] else "**outside**"
    allowed = found["tolerances"]
    return (
        f"Loss curves of the demo's recipe on the device and on the CPU, {found['steps']} steps from one seed:\n"
        f"{verdict} the tolerances. Relative difference of the first step {found['first_step_difference']:.1e} "
        f"(at most {allowed['first_step']:g}), mean {found['mean_difference']:.1e} (at most {allowed['mean']:g}), "
        f"largest {found['largest_difference']:.1e}."
    )


def _resume(found: Figures) -> str:
    return (
        f"Stopped by SIGTERM after {found['steps_before']} steps (exit code {found['exit_code_of_the_stop']}) and "
        f"resumed: {found['steps']} steps, mean difference from the run without a stop {found['mean_difference']:.1e}."
    )


def _sparse(sparse: Figures) -> Iterator[str]:
    yield from _heading("spconv: CUDA against CPU")
    yield "Largest difference of the output and of all gradients, as a share of each tensor's largest value."
    yield ""
    rows = [
        (
            name,
            f"{found['forward']:.1e}",
            f"{found['largest_of_gradients']:.1e}",
            "yes" if found["within_tolerance"] else "no",
            _number(found["ms"]),
            _number(found["cpu_ms"]),
            found["algorithms"],
        )
        for name, found in _measured(sparse, "algorithms")
    ]
    header = ("network", "forward", "gradients", "within 1e-3", "ms", "CPU, ms", "algorithms")
    yield from _table(header, rows)


def _run(run: Figures) -> Iterator[str]:
    yield from _heading("`labelgen run` on the demo world with GPU actors")
    found = run.get("run")
    if not isinstance(found, dict):
        yield NOT_MEASURED.capitalize() + "."
        yield ""
        return
    work = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in sorted(found["stage_seconds"].items()))
    yield f"{found['samples_labelled']} samples in {found['seconds']:.1f} s; seconds of work by stage: {work}."
    if isinstance(equal := run.get("agreement with the CPU"), dict):
        shares = ", ".join(f"{name} {100 * share:.2f} %" for name, share in equal.items() if name != "shards")
        yield f"Labels equal to those of the CPU: {shares}."
    if isinstance(again := run.get("second run"), dict):
        yield f"A second run has {again['shards_done']} shards to do (exit code {again['exit_code']})."
    yield ""


def _problems(figures: dict[str, Figures]) -> Iterator[str]:
    problems = [
        (stage, name, str(found))
        for stage, by_name in figures.items()
        for name, found in by_name.items()
        if name.endswith((", failed", ", skipped"))
    ]
    if problems:
        yield from _heading("What did not run")
        yield from _table(("stage", "part", "reason"), [(s, n, r.replace("\n", " ")[:300]) for s, n, r in problems])


def _measured(stage: Figures, key: str) -> list[tuple[str, Figures]]:
    return [(name, found) for name, found in stage.items() if isinstance(found, dict) and key in found]


def _heading(text: str) -> Iterator[str]:
    yield f"## {text}"
    yield ""


def _table(header: tuple[str, ...], rows: Any) -> Iterator[str]:
    rows = list(rows)
    if not rows:
        yield NOT_MEASURED.capitalize() + "."
    else:
        yield "| " + " | ".join(header) + " |"
        yield "|" + "---|" * len(header)
        for row in rows:
            yield "| " + " | ".join(row) + " |"
    yield ""


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _memory_text(peak: dict[str, float] | None) -> str:
    return "-" if peak is None else f"{peak['tensors']:.1f} GB in tensors, {peak['reserved']:.1f} GB reserved"


if __name__ == "__main__":
    write_page(Path(sys.argv[1]), Path(sys.argv[2]))

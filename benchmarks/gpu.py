"""SAM on a GPU: milliseconds an image by stage, against the stock generator in the same run, and what nuScenes costs.

    python -m benchmarks.gpu [--architectures vit_b vit_h demo] [--device cuda] [--out benchmarks]

The official sizes run with random weights, which take as long as trained ones, on 1600x900 pictures, and the threshold
leaves as many masks as is usual (1 of 3). `demo` runs with the demo's weights, and tells how far bf16 moves the result:
the mean IoU of the masks of stock with the nearest of ours, and the share of pixels on which these agree. Prints a
table, and writes gpu.json and gpu.md.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator

from benchmarks.masks import SIZE
from labelgen.settings import SamSettings
from labelgen.teachers import automatic_masks
from labelgen.teachers.masks import nearest_pixels
from labelgen.teachers.prompt_decoder import PromptDecoder
from labelgen.teachers.sam import SamTeacher

NUSCENES_IMAGES = 204_894
NATIVE = (900, 1600)
PASSING = 1 / 3
DEMO_THRESHOLDS = {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.3, "points_per_side": 20}


class Stopwatch:
    """Seconds by stage; waits for the device before it reads the clock."""

    def __init__(self, device: str) -> None:
        """Time work on `device`."""
        self._device = device
        self.seconds: dict[str, float] = {}

    def wait(self) -> float:
        """Return the time once the device has nothing left to do."""
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return `work`, timed as part of a stage."""

        def run(*args: Any, **kwargs: Any) -> Any:
            start = self.wait()
            result = work(*args, **kwargs)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + self.wait() - start
            return result

        return run


@contextmanager
def by_stage(device: str) -> Iterator[Stopwatch]:
    """Time the stages of the SAM teacher while the context lasts."""
    watch = Stopwatch(device)
    with ExitStack() as stack:
        for owner, name, stage in (
            (SamTeacher, "embed", "encoder"),
            (PromptDecoder, "answer", "decoder, prompts"),
            (PromptDecoder, "masks", "decoder, masks"),
            (automatic_masks, "measure", "stability, boxes"),
        ):
            stack.enter_context(patch.object(owner, name, watch.timed(stage, getattr(owner, name))))
        yield watch


def measure(architecture: str, device: str, pictures: list[NDArray[np.uint8]], rounds: int) -> dict[str, Any]:
    """Return the figures of one architecture on native pictures (H0, W0, 3)."""
    settings = settings_of(architecture, device, pictures[0])
    teacher = SamTeacher(settings, device)
    stock = SamAutomaticMaskGenerator(
        teacher.model,
        points_per_side=settings.points_per_side,
        points_per_batch=64,
        pred_iou_thresh=settings.pred_iou_thresh,
        stability_score_thresh=settings.stability_score_thresh,
    )
    watch = Stopwatch(device)
    teacher.run(pictures, SIZE)
    records = stock.generate(pictures[0])
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    times: dict[str, list[float]] = {"ours": [], "stock": []}
    for _ in range(rounds):
        start = watch.wait()
        result = teacher.run(pictures, SIZE)
        times["ours"].append((watch.wait() - start) / len(pictures))
        peak = torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else None
        start = watch.wait()
        stock.generate(pictures[0])
        times["stock"].append(watch.wait() - start)
    with by_stage(device) as stages:
        teacher.run(pictures, SIZE)
    ours, theirs = (statistics.median(found) for found in times.values())
    staged = {name: 1000 * seconds / len(pictures) for name, seconds in stages.seconds.items()}
    bytes_an_image = sum(part.nbytes for part in (result.mask_ids, result.features)) / len(pictures)
    return {
        "architecture": architecture,
        "ms": 1000 * ours,
        "stock_ms": 1000 * theirs,
        "ratio": theirs / ours,
        "stages_ms": staged,
        "peak_gb": peak,
        "nuscenes_gpu_hours": ours * NUSCENES_IMAGES / 3600,
        "nuscenes_gb": bytes_an_image * NUSCENES_IMAGES / 1e9,
        **compare(teacher, pictures[0], records),
    }


def settings_of(architecture: str, device: str, picture: NDArray[np.uint8]) -> SamSettings:
    """Return the settings to measure with; for random weights, the IoU threshold that leaves the usual share."""
    if architecture == "demo":
        return SamSettings(architecture="demo", weights="demo-sam", **DEMO_THRESHOLDS)
    every = SamSettings(architecture=architecture, weights="untrained:0", stability_score_thresh=0.0)
    teacher = SamTeacher(every.model_copy(update={"points_per_side": 8}), device)
    with torch.inference_mode():
        embedding = teacher.embed([picture])[0]
        decoder = PromptDecoder(teacher.model, embedding, rows=36)
        side = teacher.model.image_encoder.img_size
        points = torch.rand(64, 2, generator=torch.manual_seed(0)) * torch.tensor([side, side * 36 / 64])
        quality = decoder.answer(points.to(device)).predicted_iou.flatten()
    return every.model_copy(update={"pred_iou_thresh": float(quality.quantile(1 - PASSING))})


def compare(teacher: SamTeacher, picture: NDArray[np.uint8], records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how far our masks of a picture agree with the stock generator's."""
    with torch.inference_mode():
        found = teacher.propose(picture, teacher.embed([picture])[0], SIZE)
    ours = np.stack([mask.inside for mask in found]).reshape(len(found), -1).astype(np.float32)
    theirs = np.stack([nearest_pixels(record["segmentation"], SIZE) for record in records])
    theirs = theirs.reshape(len(records), -1).astype(np.float32)
    both = theirs @ ours.T
    iou = both / np.maximum(theirs.sum(1)[:, None] + ours.sum(1)[None] - both, 1)
    nearest = ours[iou.argmax(axis=1)]
    return {
        "masks": len(found),
        "stock_masks": len(records),
        "mask_miou": float(iou.max(axis=1).mean()),
        "pixel_agreement": float((nearest == theirs).mean()),
    }


def draw_pictures(count: int) -> list[NDArray[np.uint8]]:
    """Return pictures (900, 1600, 3) of soft coloured blobs."""
    rng = np.random.default_rng(0)
    blobs = [rng.integers(0, 256, (18, 32, 3), np.uint8) for _ in range(count)]
    return [np.asarray(Image.fromarray(blob).resize(NATIVE[::-1], Image.Resampling.BICUBIC)) for blob in blobs]


def table(found: list[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| SAM | ms an image | stock | ratio | stages, ms | peak GB | nuScenes GPU-h | GB | IoU, pixels equal |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        stages = ", ".join(f"{name} {ms:.1f}" for name, ms in row["stages_ms"].items())
        peak = "-" if row["peak_gb"] is None else f"{row['peak_gb']:.1f}"
        lines.append(
            f"| {row['architecture']} | {row['ms']:.1f} | {row['stock_ms']:.0f} | {row['ratio']:.1f} | {stages} "
            f"| {peak} | {row['nuscenes_gpu_hours']:.2f} | {row['nuscenes_gb']:.0f} "
            f"| {row['mask_miou']:.4f}, {100 * row['pixel_agreement']:.3f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=["vit_b", "vit_h", "demo"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    args = parser.parse_args()
    pictures = draw_pictures(args.pictures)
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    found = [measure(architecture, args.device, pictures, args.rounds) for architecture in args.architectures]
    print(f"{name}, torch {torch.__version__}\n\n{table(found)}")
    (args.out / "gpu.json").write_text(json.dumps({"device": name, "rows": found}, indent=2) + "\n")
    (args.out / "gpu.md").write_text(f"# SAM on a GPU\n\n`python -m benchmarks.gpu` on: {name}.\n\n{table(found)}\n")


if __name__ == "__main__":
    main()

"""The teachers on a GPU: milliseconds an image by stage, against stock in the same run, and what nuScenes costs.

    python -m benchmarks.gpu [--architectures vit_b vit_h demo] [--demo out/demo] [--device cuda] [--out benchmarks]

Each network runs as it is and with sam.compile, whose first call says after how many images it has paid. The official
sizes run with random weights, which take as long as trained ones, on 1600x900 images, and the threshold
leaves as many masks as is usual (1 of 3). A call takes `--images`; `rest` is what the stages leave: suppression,
painting, copies. `demo` runs with the demo's weights on images of a demo world (`make demo-world`), and tells how far
bf16 moves the result: the mean IoU of the masks of stock in fp32 with the nearest of ours, and the share of pixels on
which these agree. Last comes CLIP ViT-B/16 at training size, all images at once against one by one. Prints a table,
and writes gpu.json and gpu.md.
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
from labelgen.settings import ClipSettings, SamSettings
from labelgen.teachers.clip.teacher import ClipTeacher
from labelgen.teachers.sam import mask_generator as automatic_masks
from labelgen.teachers.sam.network import build_sam
from labelgen.teachers.sam.preprocessing import ResizedImage as Picture
from labelgen.teachers.sam.preprocessing import resize_for_sam as fit
from labelgen.teachers.sam.prompt_decoder import PromptDecoder
from labelgen.teachers.sam.resampling import nearest_pixels
from labelgen.teachers.sam.teacher import SamTeacher

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
    """Time the stages of the SAM teachers that are made while the context lasts."""
    watch = Stopwatch(device)
    with ExitStack() as stack:
        for owner, name, stage in (
            (SamTeacher, "embed", "encoder"),
            (PromptDecoder, "answer", "decoder, prompts"),
            (PromptDecoder, "masks", "decoder, masks"),
            (automatic_masks, "find_survivors", "survivors"),
        ):
            stack.enter_context(patch.object(owner, name, watch.timed(stage, getattr(owner, name))))
        yield watch


def measure(settings: SamSettings, device: str, images: list[NDArray[np.uint8]], rounds: int) -> dict[str, Any]:
    """Return the figures of SAM under some settings on native images (H0, W0, 3)."""
    teacher = SamTeacher(settings, device)
    stock = SamAutomaticMaskGenerator(
        build_sam(settings).to(device).eval().requires_grad_(False),
        points_per_side=settings.points_per_side,
        points_per_batch=64,
        pred_iou_thresh=settings.pred_iou_thresh,
        stability_score_thresh=settings.stability_score_thresh,
    )
    pictures = [fit(image, settings.architecture) for image in images]
    watch = Stopwatch(device)
    start = watch.wait()
    teacher.run(pictures, SIZE)
    first_call = watch.wait() - start
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    result = teacher.run(pictures, SIZE)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else None
    agreement = compare(teacher, images, [stock.generate(image) for image in images])
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        start = watch.wait()
        teacher.run(pictures, SIZE)
        times[0].append((watch.wait() - start) / len(images))
        start = watch.wait()
        stock.generate(images[0])
        times[1].append(watch.wait() - start)
    ours, theirs = map(statistics.median, times)
    kept = (result.mask_ids, result.features, result.features_scale)
    bytes_an_image = sum(part.nbytes for part in kept if part is not None) / len(images)
    return {
        "network": settings.architecture + (", compiled" if settings.compile else ""),
        "ms": 1000 * ours,
        "stock_ms": 1000 * theirs,
        "ratio": theirs / ours,
        "first_call_s": first_call,
        "stages_ms": stages(settings, device, pictures),
        "peak_gb": peak,
        "nuscenes_gpu_hours": ours * NUSCENES_IMAGES / 3600,
        "nuscenes_gb": bytes_an_image * NUSCENES_IMAGES / 1e9,
        **agreement,
    }


def measure_both(settings: SamSettings, *of: Any) -> list[dict[str, Any]]:
    """Return the figures of SAM as it is and compiled, and how many images it takes until compiling has paid."""
    plain, fused = (measure(settings.model_copy(update={"compile": fuse}), *of) for fuse in (False, True))
    longer, saved = fused["first_call_s"] - plain["first_call_s"], plain["ms"] - fused["ms"]
    return [plain, {**fused, "pays_after_images": 1000 * longer / saved if saved > 0 else None}]


def stages(settings: SamSettings, device: str, pictures: list[Picture]) -> dict[str, float]:
    """Return milliseconds an image by stage; as each waits for the device, together they take longer than a run."""
    with by_stage(device) as watch:
        teacher = SamTeacher(settings, device)
        teacher.run(pictures, SIZE)
        watch.seconds.clear()
        start = watch.wait()
        teacher.run(pictures, SIZE)
        whole = watch.wait() - start
    seconds = {**watch.seconds, "rest": whole - sum(watch.seconds.values())}
    return {name: 1000 * taken / len(pictures) for name, taken in seconds.items()}


def settings_of(architecture: str, device: str, image: NDArray[np.uint8], points_per_side: int | None) -> SamSettings:
    """Return the settings to measure with; for random weights, the IoU threshold that leaves the usual share."""
    density = {} if points_per_side is None else {"points_per_side": points_per_side}
    if architecture == "demo":
        return SamSettings(architecture="demo", weights="demo-sam", **{**DEMO_THRESHOLDS, **density})
    every = SamSettings(architecture=architecture, weights="untrained:0", stability_score_thresh=0.0, **density)
    teacher = SamTeacher(every, device)
    side = teacher.model.image_encoder.img_size
    points = torch.rand(64, 2, generator=torch.manual_seed(0)) * torch.tensor([side, side * 36 / 64])
    with torch.inference_mode():
        embeddings = teacher.embed(teacher.upload([fit(image, architecture)])).to(teacher.precision)
        quality = PromptDecoder(teacher.model, 36).answer(embeddings, points.to(device)).predicted_iou.flatten()
    return every.model_copy(update={"pred_iou_thresh": float(quality.quantile(1 - PASSING))})


def compare(
    teacher: SamTeacher, images: list[NDArray[np.uint8]], records: list[list[dict[str, Any]]]
) -> dict[str, float]:
    """Return how far our masks agree with the stock generator's; the means are over the masks of all images."""
    ious, equal, count = [], [], 0
    for image, theirs_of_one in zip(images, records, strict=True):
        with torch.inference_mode():
            embeddings = teacher.embed(teacher.upload([fit(image, teacher.settings.architecture)]))
            (found,) = teacher.propose(embeddings, image.shape[:2], SIZE)
        count += len(found.inside)
        if not theirs_of_one or not len(found.inside):
            ious += [0.0] * len(theirs_of_one)
            continue
        ours = found.inside.cpu().flatten(1).numpy().astype(np.float32)
        theirs = np.array([nearest_pixels(one["segmentation"], SIZE).ravel() for one in theirs_of_one], np.float32)
        both = theirs @ ours.T
        iou = both / np.maximum(theirs.sum(1)[:, None] + ours.sum(1)[None] - both, 1)
        ious += iou.max(axis=1).tolist()
        equal += (ours[iou.argmax(axis=1)] == theirs).mean(axis=1).tolist()
    return {
        "masks": count,
        "stock_masks": len(ious),
        "mask_miou": float(np.mean(ious)),
        "pixel_agreement": float(np.mean(equal)),
    }


def measure_clip(device: str, images: list[NDArray[np.uint8]], rounds: int) -> dict[str, Any]:
    """Return the figures of CLIP ViT-B/16 on images at training size: all at once, against one by one."""
    teacher = ClipTeacher(ClipSettings(architecture="ViT-B-16-quickgelu", weights="untrained:0"), device)
    text = np.random.default_rng(0).normal(size=(16, 512)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    rgb = np.stack([np.asarray(Image.fromarray(image).resize(SIZE[::-1])) for image in images])
    watch = Stopwatch(device)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for batches, found in zip(([rgb], rgb[:, None]), times, strict=True):
            start = watch.wait()
            logits = [teacher.score(batch, text).logits for batch in batches]
            found.append((watch.wait() - start) / len(rgb))
    ours, theirs = (statistics.median(found[1:]) for found in times)
    return {
        "network": "CLIP ViT-B/16",
        "ms": 1000 * ours,
        "stock_ms": 1000 * theirs,
        "ratio": theirs / ours,
        "first_call_s": times[0][0] * len(rgb),
        "nuscenes_gpu_hours": ours * NUSCENES_IMAGES / 3600,
        "nuscenes_gb": logits[0].nbytes * NUSCENES_IMAGES / 1e9,
    }


def draw_images(count: int) -> list[NDArray[np.uint8]]:
    """Return images (900, 1600, 3) of soft coloured blobs."""
    rng = np.random.default_rng(0)
    blobs = [rng.integers(0, 256, (18, 32, 3), np.uint8) for _ in range(count)]
    return [np.asarray(Image.fromarray(blob).resize(NATIVE[::-1], Image.Resampling.BICUBIC)) for blob in blobs]


def demo_images(world: Path, count: int) -> list[NDArray[np.uint8]]:
    """Return native images of a demo world."""
    files = sorted(world.glob("samples/CAM_*/*.jpg"))[:count]
    if not files:
        raise SystemExit(f"error: {world}/samples holds no images; make them with: make demo-world")
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def table(found: list[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| network | ms an image | stock | ratio | first call, s | stages, ms | peak GB | nuScenes GPU-h | GB "
        "| mask IoU, pixels equal |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        stages = ", ".join(f"{name} {ms:.1f}" for name, ms in row.get("stages_ms", {}).items())
        peak = "-" if row.get("peak_gb") is None else f"{row['peak_gb']:.1f}"
        equal = f"{row['mask_miou']:.4f}, {100 * row['pixel_agreement']:.3f} %" if "mask_miou" in row else "-"
        paid = row.get("pays_after_images")
        first_call = f"{row['first_call_s']:.1f}" + (f", paid after {paid:.0f} images" if paid else "")
        lines.append(
            f"| {row['network']} | {row['ms']:.1f} | {row['stock_ms']:.0f} | {row['ratio']:.1f} "
            f"| {first_call} | {stages} | {peak} | {row['nuscenes_gpu_hours']:.2f} "
            f"| {row['nuscenes_gb']:.0f} | {equal} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=["vit_b", "vit_h", "demo"])
    parser.add_argument("--demo", type=Path, default=Path("out/demo"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--points-per-side", type=int, help="another grid than usual, to try the script")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    args = parser.parse_args()
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    found = []
    for architecture in args.architectures:
        images = demo_images(args.demo, args.images) if architecture == "demo" else draw_images(args.images)
        settings = settings_of(architecture, args.device, images[0], args.points_per_side)
        of = args.device, images, args.rounds
        found += measure_both(settings, *of) if args.compile else [measure(settings, *of)]
    found.append(measure_clip(args.device, draw_images(args.images), args.rounds))
    print(f"{name}, torch {torch.__version__}\n\n{table(found)}")
    (args.out / "gpu.json").write_text(json.dumps({"device": name, "rows": found}, indent=2) + "\n")
    (args.out / "gpu.md").write_text(
        f"# Teachers on a GPU\n\n`python -m benchmarks.gpu` on: {name}.\n\n{table(found)}\n"
    )


if __name__ == "__main__":
    main()

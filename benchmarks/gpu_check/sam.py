"""Stage `sam`: automatic masks at 1600 x 900 pixels, in time, agreement and memory, against the stock generator.

Official sizes run with random weights, which take as long as trained ones. The threshold of the predicted IoU is
chosen so that a third of the masks pass, as is usual. The demo's weights and pictures show how far bf16 and fp32 move
the result away from the stock generator in fp32.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator

from benchmarks.gpu_check.context import Context
from benchmarks.gpu_check.pictures import NATIVE_SIZE, TRAINING_SIZE, demo_pictures, soft_blobs
from benchmarks.gpu_check.stage_record import StageRecord
from labelgen.settings import SamSettings
from labelgen.teachers.sam import mask_generator
from labelgen.teachers.sam.network import build_sam
from labelgen.teachers.sam.preprocessing import resize_for_sam
from labelgen.teachers.sam.prompt_decoder import PromptDecoder
from labelgen.teachers.sam.resampling import nearest_pixels
from labelgen.teachers.sam.teacher import SamTeacher

PASSING_SHARE = 1 / 3
STOCK_PROMPTS = 64
DEMO_SETTINGS = {
    "architecture": "demo",
    "weights": "demo-sam",
    "points_per_side": 20,
    "pred_iou_thresh": 0.2,
    "stability_score_thresh": 0.3,
    "box_nms_thresh": 0.5,
}
SECONDS = {"eager": 25.0, "compiled": 75.0, "memory": 15.0, "agreement": 40.0}
"""How long a part takes on a GPU, so that no part starts that would not end in time."""


def measure(context: Context, record: StageRecord) -> None:
    """Record times, memory and agreement; parts that take long come last."""
    for architecture in context.sizes.sam:
        with record.part(architecture):
            record.need(SECONDS["eager"], architecture)
            record.add(architecture, times(context, untrained(context, architecture)))
    for precision in (torch.bfloat16, torch.float32):
        name = f"agreement of {str(precision).removeprefix('torch.')}"
        with record.part(name):
            record.need(SECONDS["agreement"], name)
            record.add(name, agreement(context, precision))
    for memory_gb, prompts in context.sizes.prompts_by_memory_gb.items():
        name = f"memory on {memory_gb} GB"
        with record.part(name):
            record.need(SECONDS["memory"], name)
            record.add(name, memory(context, context.sizes.sam[0], prompts))
    for architecture in context.sizes.sam if context.sizes.compiled else ():
        name = f"{architecture}, compiled"
        with record.part(name):
            record.need(SECONDS["compiled"], name)
            settings = untrained(context, architecture).model_copy(update={"compile": True})
            record.add(name, times(context, settings))


def untrained(context: Context, architecture: str) -> SamSettings:
    """Return settings with random weights and the IoU threshold that lets `PASSING_SHARE` of the masks pass."""
    grid = context.sizes.points_per_side
    settings = SamSettings(
        architecture=architecture,
        weights="untrained:0",
        stability_score_thresh=0.0,
        **({} if grid is None else {"points_per_side": grid}),
    )
    teacher = SamTeacher(settings, context.device)
    side = teacher.model.image_encoder.img_size
    points = torch.rand(64, 2, generator=torch.manual_seed(0)) * torch.tensor([side, side * 36 / 64])
    with torch.inference_mode():
        batch = teacher.upload([resize_for_sam(soft_blobs(1, NATIVE_SIZE)[0], architecture)])
        decoder = PromptDecoder(teacher.model, 36)
        answers = decoder.answer(teacher.embed(batch).to(teacher.precision), points.to(context.device))
    quality = answers.predicted_iou.flatten().float()
    return settings.model_copy(update={"pred_iou_thresh": float(quality.quantile(1 - PASSING_SHARE))})


def times(context: Context, settings: SamSettings) -> dict[str, Any]:
    """Return milliseconds an image, ours by stage and stock, and the peak memory."""
    pictures = soft_blobs(context.sizes.pictures, NATIVE_SIZE)
    resized = [resize_for_sam(picture, settings.architecture) for picture in pictures]
    teacher, stock = SamTeacher(settings, context.device), stock_generator(settings, context.device)
    start = context.now_s()
    teacher.run(resized, TRAINING_SIZE)
    first_call = context.now_s() - start
    context.forget_peak_memory()
    result = teacher.run(resized, TRAINING_SIZE)
    peak = context.peak_memory_gb()
    stock.generate(pictures[0])
    ours, theirs = [], []
    for _ in range(context.sizes.rounds):
        start = context.now_s()
        teacher.run(resized, TRAINING_SIZE)
        ours.append((context.now_s() - start) / len(resized))
        start = context.now_s()
        masks = len(stock.generate(pictures[0]))
        theirs.append(context.now_s() - start)
    arrays = (result.mask_ids, result.features, result.features_scale)
    return {
        "ms_an_image": 1000 * statistics.median(ours),
        "stock_ms_an_image": 1000 * statistics.median(theirs),
        "ratio": statistics.median(theirs) / statistics.median(ours),
        "first_call_s": first_call,
        "stages_ms_an_image": stage_times(context, settings, resized),
        "stock_masks_of_first_picture": masks,
        "points_per_side": settings.points_per_side,
        "points_per_batch": settings.points_per_batch,
        "peak_memory_gb": peak,
        "bytes_an_image": sum(array.nbytes for array in arrays if array is not None) / len(resized),
    }


def stock_generator(settings: SamSettings, device: str) -> SamAutomaticMaskGenerator:
    """Return segment_anything's own generator in fp32, with the same weights and thresholds."""
    return SamAutomaticMaskGenerator(
        build_sam(settings).to(device).eval().requires_grad_(False),
        points_per_side=settings.points_per_side,
        points_per_batch=STOCK_PROMPTS,
        pred_iou_thresh=settings.pred_iou_thresh,
        stability_score_thresh=settings.stability_score_thresh,
        box_nms_thresh=settings.box_nms_thresh,
    )


def stage_times(context: Context, settings: SamSettings, resized: list[Any]) -> dict[str, float]:
    """Return milliseconds an image by stage; each stage waits for the device, so their sum is more than a run takes."""
    with timed_stages(context) as seconds:
        teacher = SamTeacher(settings, context.device)
        teacher.run(resized, TRAINING_SIZE)
        seconds.clear()
        start = context.now_s()
        teacher.run(resized, TRAINING_SIZE)
        whole = context.now_s() - start
    seconds["rest"] = whole - sum(seconds.values())
    return {name: 1000 * taken / len(resized) for name, taken in seconds.items()}


@contextmanager
def timed_stages(context: Context) -> Iterator[dict[str, float]]:
    """Time the stages of the SAM teachers that are made while the context lasts; yields seconds by stage."""
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = context.now_s()
            result = work(*args, **kwargs)
            seconds[stage] = seconds.get(stage, 0.0) + context.now_s() - start
            return result

        return run

    with ExitStack() as stack:
        for owner, name, stage in (
            (SamTeacher, "embed", "encoder"),
            (PromptDecoder, "answer", "decoder, prompts"),
            (PromptDecoder, "masks", "decoder, masks"),
            (mask_generator, "find_survivors", "filter"),
        ):
            stack.enter_context(patch.object(owner, name, timed(stage, getattr(owner, name))))
        yield seconds


def memory(context: Context, architecture: str, prompts: int) -> dict[str, Any]:
    """Return the peak memory of a call with `prompts` prompts at once."""
    settings = untrained(context, architecture).model_copy(update={"points_per_batch": prompts})
    resized = [resize_for_sam(picture, architecture) for picture in soft_blobs(context.sizes.pictures, NATIVE_SIZE)]
    context.forget_peak_memory()
    teacher = SamTeacher(settings, context.device)
    teacher.run(resized, TRAINING_SIZE)
    return {"architecture": architecture, "points_per_batch": prompts, "peak_memory_gb": context.peak_memory_gb()}


def agreement(context: Context, precision: torch.dtype) -> dict[str, Any]:
    """Compare the demo's SAM in one precision with the stock generator in fp32, on pictures of the demo world.

    For each stock mask the most similar of our masks counts: the mean IoU of these pairs, and the share of pixels, at
    training size, on which they are equal.
    """
    grid = context.sizes.points_per_side
    settings = SamSettings(**{**DEMO_SETTINGS, **({} if grid is None else {"points_per_side": grid})})
    teacher = SamTeacher(settings, context.device, precision)
    stock = stock_generator(settings, context.device)
    ious: list[float] = []
    equal: list[float] = []
    ours_count = 0
    pictures = demo_pictures(context.world, context.sizes.agreement_pictures)
    for picture in pictures:
        with torch.inference_mode():
            embeddings = teacher.embed(teacher.upload([resize_for_sam(picture, settings.architecture)]))
            (found,) = teacher.propose(embeddings, picture.shape[:2], TRAINING_SIZE)
        ours = found.inside.cpu().flatten(1).numpy().astype(np.float32)
        theirs = [record["segmentation"] for record in stock.generate(picture)]
        ours_count += len(ours)
        found_ious, found_equal = best_matches(ours, theirs)
        ious += found_ious
        equal += found_equal
    return {
        "pictures": len(pictures),
        "masks": ours_count,
        "stock_masks": len(ious),
        "mean_iou": float(np.mean(ious)),
        "equal_pixels": float(np.mean(equal)),
    }


def best_matches(ours: NDArray[np.float32], stock: list[NDArray[np.bool_]]) -> tuple[list[float], list[float]]:
    """Return, for each stock mask, the IoU with the best match in `ours` (M, H * W), and the share of equal pixels."""
    if not stock or not len(ours):
        return [0.0] * len(stock), [0.0] * len(stock)
    theirs = np.array([nearest_pixels(mask, TRAINING_SIZE).ravel() for mask in stock], np.float32)
    both = theirs @ ours.T
    iou = both / np.maximum(theirs.sum(1)[:, None] + ours.sum(1)[None] - both, 1)
    best = iou.argmax(axis=1)
    return iou.max(axis=1).tolist(), (ours[best] == theirs).mean(axis=1).tolist()

"""Stage `training`: a step at the paper's sizes by part, throughput, equal loss curves on GPU and CPU, stop and resume.

The cache at nuScenes' sizes is made from the demo's: as many clouds a step as the paper takes, each with its six
pictures and SAM features of the official width.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_check.context import Context
from benchmarks.gpu_check.stage_record import OutOfTimeError, StageRecord
from benchmarks.made_cache import write_nuscenes_size
from benchmarks.trainer_step import measure_step
from cache_schemas.store import Cache

CURVE_TOLERANCE = 0.05
"""Mean relative difference of two loss curves that start from one seed on two devices."""

FIRST_STEP_TOLERANCE = 1e-3
"""Relative difference of their first losses, before rounding can grow."""

HELD_OUT_EVERY = 5
"""The demo's recipe leaves every fifth scene for evaluation."""

SECONDS = {"step": 40.0, "throughput": 40.0, "curves": 75.0, "resume": 30.0}


def measure(context: Context, record: StageRecord) -> None:
    """Record the parts of a step first, then what whole runs show."""
    sizes = context.sizes
    large = context.scratch / "nuscenes-size.zarr"
    with record.part("step"):
        record.need(SECONDS["step"], "step")
        source, manifest = Cache.open(str(context.cache))
        write_nuscenes_size(source, manifest, str(large), sizes.step_samples)
        paper = [*sizes.networks, f"stream.batch_samples={sizes.step_samples}", "optimiser.precision=bf16"]
        paper += ["stream.images=6", "stream.hold_out=0", "augment.relight=0"]
        record.add("step", {"settings": paper, **measure_step(str(large), paper, sizes.steps)})
    with record.part("throughput"):
        record.need(SECONDS["throughput"], "throughput")
        record.add("throughput", throughput(context, large, paper))
    with record.part("curves"):
        record.need(SECONDS["curves"], "curves")
        record.add("curves", curves(context))
    with record.part("resume"):
        record.need(SECONDS["resume"], "resume")
        record.add("resume", resume(context))


def throughput(context: Context, cache: Path, settings: list[str]) -> dict[str, Any]:
    """Return what `trainer fit` itself reports: images a second, the share of time that waits for data, memory."""
    workers = 4 if context.cuda else 0
    epochs = 3 * context.sizes.steps
    settings = [*settings, f"stream.workers={workers}", f"optimiser.epochs={epochs}", "schedule.stage2_epoch=2"]
    out = fit(context, cache, context.scratch / "throughput", settings)
    lines = [line for line in out.splitlines() if "images/s" in line]
    found = re.search(
        r"([\d.]+) images/s, ([\d.]+) k points/s \| waiting for data ([\d.]+) % \| ([\d.]+) GB", lines[-1]
    )
    if not found:
        raise RuntimeError(f"no throughput in the line {lines[-1]!r}")
    names = ("images_a_second", "thousand_points_a_second", "waiting_for_data_percent", "peak_memory_gb")
    return dict(zip(names, map(float, found.groups()), strict=True)) | {"steps": epochs}


def curves(context: Context) -> dict[str, Any]:
    """Compare the loss curves of the demo's recipe on the device and on the CPU, from one seed, in fp32."""
    settings = curve_settings(context)
    seconds: dict[str, float] = {}
    losses = {}
    for device in dict.fromkeys((context.device, "cpu-reference")):
        start = time.monotonic()
        folder = context.scratch / f"curve-{device}"
        fit(context, context.cache, folder, settings, cpu=device != context.device)
        seconds[device] = round(time.monotonic() - start, 1)
        losses[device] = loss_curve(folder)
    device, cpu = losses[context.device], losses["cpu-reference"]
    difference = np.abs(device - cpu) / np.abs(cpu)
    return {
        "steps": len(cpu),
        "first_step_difference": float(difference[0]),
        "mean_difference": float(difference.mean()),
        "largest_difference": float(difference.max()),
        "tolerances": {"first_step": FIRST_STEP_TOLERANCE, "mean": CURVE_TOLERANCE},
        "within_tolerance": bool(difference[0] <= FIRST_STEP_TOLERANCE and difference.mean() <= CURVE_TOLERANCE),
        "seconds": seconds,
        "device_losses": device.round(4).tolist(),
        "cpu_losses": cpu.round(4).tolist(),
    }


def curve_settings(context: Context) -> list[str]:
    """Return the demo's recipe with as many epochs as `curve_steps` steps of one cloud take; its precision is fp32."""
    shards = len(Cache.open(str(context.cache))[0].shard_keys())
    hold_out = HELD_OUT_EVERY if shards >= HELD_OUT_EVERY else 0
    training = shards - (shards // hold_out if hold_out else 0)
    epochs = -(-context.sizes.curve_steps // training)
    return [f"optimiser.epochs={epochs}", f"stream.hold_out={hold_out}", "stream.workers=0"]


def resume(context: Context) -> dict[str, Any]:
    """Interrupt a run, resume it, and compare its curve with that of the run in `curves`, which was not interrupted."""
    undisturbed = context.scratch / f"curve-{context.device}"
    if not undisturbed.exists():
        raise OutOfTimeError("its run without a stop was not made")
    settings = curve_settings(context)
    folder = context.scratch / "resumed"
    process = subprocess.Popen(
        command(context.cache, folder, settings), env=environment(context, cpu=False), stderr=subprocess.DEVNULL
    )
    history = folder / "history.jsonl"
    while process.poll() is None and not (history.exists() and history.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    stopped = process.wait(timeout=60)
    steps_before = len(loss_curve(folder))
    fit(context, context.cache, folder, settings, more=["--resume"])
    resumed, whole = loss_curve(folder), loss_curve(undisturbed)
    difference = np.abs(resumed - whole) / np.abs(whole)
    return {
        "exit_code_of_the_stop": stopped,
        "steps_before": steps_before,
        "steps": len(resumed),
        "mean_difference": float(difference.mean()),
        "largest_difference": float(difference.max()),
    }


def fit(
    context: Context, cache: Path, out: Path, settings: list[str], *, cpu: bool = False, more: list[str] | None = None
) -> str:
    """Run `trainer fit`; returns what it prints to standard error.

    Raises:
        RuntimeError: with the last line that it printed, if it fails.
    """
    done = subprocess.run(
        [*command(cache, out, settings), *(more or [])],
        env=environment(context, cpu=cpu),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"trainer fit ended with {done.returncode}: {done.stderr.strip().splitlines()[-3:]}")
    return done.stderr


def command(cache: Path, out: Path, settings: list[str]) -> list[str]:
    """Return the command line of `trainer fit`."""
    options = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "trainer.cli", "fit", str(cache), "--out", str(out), *options]


def environment(context: Context, *, cpu: bool) -> dict[str, str]:
    """Return the environment of a run on the device, or on the CPU alone."""
    return {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if cpu or not context.cuda else {})}


def loss_curve(folder: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the losses (steps,) of a run folder."""
    rows = (folder / "history.jsonl").read_text().splitlines()
    return np.array([json.loads(row)["loss"] for row in rows])

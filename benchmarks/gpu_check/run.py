"""Stage `run`: `labelgen run` on the demo world with GPU actors on a local Ray cluster."""

import importlib.util
import json
import shutil
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.gpu_check.context import Context
from benchmarks.gpu_check.stage_record import StageRecord
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.presets import CUSTOM, preset_of


def measure(context: Context, record: StageRecord) -> None:
    """Record the summary of the run, and how far its labels agree with those of the cache that was made on a CPU."""
    if importlib.util.find_spec("ray") is None:
        record.add("run, skipped", "Ray is not installed here")
        return
    cache = context.scratch / "run.zarr"
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "labelgen.cli", "run", "--dataset", "demo", "--data", str(context.world)]
    command += ["--cache", str(cache), "--limit", str(context.sizes.scenes), "--json"]
    preset = preset_of(Cache.open(context.cache.as_posix())[1].config)
    command += [] if preset == CUSTOM else ["--preset", preset]
    with record.part("run"):
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, record.left_s))
        if done.returncode:
            raise RuntimeError(f"labelgen run ended with {done.returncode}: {done.stderr.strip().splitlines()[-3:]}")
        record.add("run", json.loads(done.stdout))
        record.add("agreement with the CPU", _agreement(cache.as_posix(), context.cache.as_posix()))
    with record.part("second run"):
        again = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, record.left_s))
        record.add(
            "second run", {"exit_code": again.returncode, "shards_done": json.loads(again.stdout)["shards_done"]}
        )


def _agreement(found_url: str, reference_url: str) -> dict[str, Any]:
    found, reference = Cache.open(found_url)[0], Cache.open(reference_url)[0]
    keys = sorted(set(found.shard_keys()) & set(reference.shard_keys()))
    equal: dict[str, list[float]] = {}
    for key in keys:
        one, other = (cache.read(GroupPath(key, "labels")) for cache in (found, reference))
        for name in one:
            equal.setdefault(name, []).append(float((one[name] == other[name]).mean()))
    return {"shards": len(keys)} | {name: float(np.mean(shares)) for name, shares in equal.items()}

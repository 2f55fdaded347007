"""Measure all that needs a GPU, stage by stage, within a number of minutes, and write the page of results.

    python -m benchmarks.gpu_check --minutes 12 --world out/demo --cache out/demo.zarr --out out/gpu-check
    python -m benchmarks.gpu_check --minutes 5 --device cpu --sizes tiny ... environment sam

Each stage runs in a process of its own and rewrites its JSON file after every figure, so what was measured before an
interruption counts. The stages, the most important first: environment, sam, clip, dense_clip, training, sparse, run.
Only `run` needs Ray; none needs a network. `benchmarks/gpu_check.sh` prepares the packages where there is no network.
"""

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu_check.page import write_page
from benchmarks.gpu_check.stage_record import mark_stopped

SHARES = {
    "environment": 0.08,
    "sam": 0.38,
    "clip": 0.08,
    "dense_clip": 0.08,
    "training": 0.32,
    "sparse": 0.12,
    "run": 0.2,
}
"""How the time that is left is divided among the stages that are left."""


def main() -> int:
    """Run the stages; returns 0 if each ended by itself."""
    args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.single:
        return _measure(args)
    end = time.monotonic() + 60 * args.minutes
    complete = True
    stages = args.stages or list(SHARES)
    for number, stage in enumerate(stages):
        share = SHARES[stage] / sum(SHARES[name] for name in stages[number:])
        seconds = share * (end - time.monotonic())
        if seconds < 5:
            print(f"{stage}: no time left", flush=True)
            complete = False
            continue
        complete &= _in_own_process(args, stage, seconds)
    write_page(args.out, args.out / "gpu.md")
    return 0 if complete else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", help="which stages (default: all)")
    parser.add_argument("--minutes", type=float, required=True, help="how long all of it may take")
    parser.add_argument("--world", type=Path, default=Path("out/demo"), help="a demo world (make demo-world)")
    parser.add_argument(
        "--cache", type=Path, default=Path("out/demo.zarr"), help="the cache of its labels (make labels)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/gpu-check"), help="folder of the JSON files and the page")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--sizes", default="full", choices=["full", "tiny"], help="tiny rehearses the script on a CPU")
    parser.add_argument("--single", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := [stage for stage in args.stages if stage not in SHARES]:
        parser.error(f"no stage {unknown[0]!r}; choose {', '.join(SHARES)}")
    return args


def _in_own_process(args: argparse.Namespace, stage: str, seconds: float) -> bool:
    """Run one stage so that its crash or its end of time harms no other."""
    print(f"== {stage}, at most {seconds:.0f} s", flush=True)
    command = [sys.executable, "-m", "benchmarks.gpu_check", stage, "--single", "--minutes", str(seconds / 60)]
    command += ["--world", str(args.world), "--cache", str(args.cache), "--out", str(args.out)]
    command += ["--device", args.device, "--sizes", args.sizes]
    try:
        return subprocess.run(command, timeout=seconds + 5).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"{stage}: stopped after {seconds:.0f} s", flush=True)
        mark_stopped(args.out / f"{stage}.json", seconds)
        return False


def _measure(args: argparse.Namespace) -> int:
    """Measure one stage in this process."""
    import traceback

    from benchmarks.gpu_check.context import Context
    from benchmarks.gpu_check.sizes import SIZES
    from benchmarks.gpu_check.stage_record import OutOfTimeError, StageRecord

    (stage,) = args.stages
    record = StageRecord(args.out, stage, 60 * args.minutes)
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(args.device, SIZES[args.sizes], args.world, args.cache, Path(scratch))
        try:
            importlib.import_module(f"benchmarks.gpu_check.{stage}").measure(context, record)
        except OutOfTimeError as error:
            record.end(f"stopped: {error}")
            return 1
        except Exception as error:
            traceback.print_exc()
            record.end(f"failed: {type(error).__name__}: {error}"[:2000])
            return 1
    record.end("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())

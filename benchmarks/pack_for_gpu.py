"""Pack what `gpu_check.sh` needs on a GPU machine without network, in archives that each fit into one transfer.

    python -m benchmarks.pack_for_gpu --world out/demo --cache out/demo.zarr [--parts core demo spconv] [--out .gpu]

Installs the wheels of benchmarks/gpu_packages.txt for Python 3.12 into folders, and compresses each part with xz: that
halves spconv and Ray, which would not fit as wheels. `demo` holds a few scenes of the demo world and their
labels. A transfer carries the checkout's tracked files too, so these count towards the limit.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

LIMIT_BYTES = 64 * 2**20
PYTHON = "3.12"
PLATFORMS = tuple(f"manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_17", "2014", "1"))
PACKAGES = Path(__file__).with_name("gpu_packages.txt")
SCENES = 5
XZ_PRESET = 9
"""Its dictionary of 64 MiB finds the GPU code that spconv holds once for each generation of GPUs."""

LEFT_OUT = ("ray/jars", "ray/dashboard/client", "ray/rllib", "ray/llm")
"""Large parts of Ray that a run does not use: its Java runtime, web pages, reinforcement learning, language models."""


def main() -> int:
    """Pack the parts, print which of them fit into one transfer; returns 1 if a part alone does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, default=Path("out/demo"))
    parser.add_argument("--cache", type=Path, default=Path("out/demo.zarr"))
    parser.add_argument("--parts", nargs="+", default=["core", "demo", "ray", "spconv"])
    parser.add_argument("--out", type=Path, default=Path(".gpu"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    packages = read_packages()
    room = LIMIT_BYTES - tracked_bytes()
    sizes = {}
    for part in args.parts:
        archive = args.out / f"{part}.tar.xz"
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            if part == "demo":
                copy_demo(args.world, args.cache, folder)
            else:
                install_packages(packages[part], folder / "site")
            with tarfile.open(archive, "w:xz", preset=XZ_PRESET) as tar:
                tar.add(folder, ".")
        sizes[part] = archive.stat().st_size
        print(f"{archive}: {sizes[part] / 2**20:.1f} MiB", flush=True)
    for number, parts in enumerate(transfers(sizes, room), start=1):
        used = sum(sizes[part] for part in parts)
        print(f"transfer {number}: {' '.join(parts)} ({used / 2**20:.1f} of {room / 2**20:.1f} MiB)")
    return 1 if any(size > room for size in sizes.values()) else 0


def read_packages() -> dict[str, list[str]]:
    """Return the pinned packages by part."""
    parts: dict[str, list[str]] = {}
    for line in PACKAGES.read_text().splitlines():
        if line.startswith("["):
            part = parts.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            part.append(line)
    return parts


def tracked_bytes() -> int:
    """Return the bytes of the tracked files, which travel with every transfer."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True).stdout.decode()
    return sum(Path(name).stat().st_size for name in listed.split("\0") if name)


def install_packages(packages: list[str], site: Path) -> None:
    """Install the packages' wheels for Python 3.12 into a folder for PYTHONPATH, without what is left out."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp", "--target", str(site)]
    command += [option for platform in PLATFORMS for option in ("--platform", platform)]
    subprocess.run([*command, *packages], check=True)
    for name in LEFT_OUT:
        shutil.rmtree(site / name, ignore_errors=True)


def copy_demo(world: Path, cache: Path, folder: Path) -> None:
    """Copy the tables and the first scenes of a demo world, and their shards of its cache."""
    from cache_schemas.store import Cache

    shards = Cache.open(str(cache))[0].shard_keys()[:SCENES]
    scenes = [shard.rsplit("-", 1)[0] for shard in shards]
    for source in (path for path in world.rglob("*") if path.is_file()):
        place = source.relative_to(world)
        if place.parts[0].startswith("v1.0") or any(scene in source.name for scene in scenes):
            target = folder / "demo" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for path in (path for path in cache.rglob("*") if path.is_file()):
        place = path.relative_to(cache)
        if place.parts[0] != "shards" or len(place.parts) == 2 or place.parts[1] in shards:
            target = folder / "demo.zarr" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def transfers(sizes: dict[str, int], room: int) -> list[list[str]]:
    """Group parts, in their order, into transfers of at most `room` bytes."""
    groups: list[list[str]] = []
    for part in sizes:
        if groups and sum(sizes[other] for other in groups[-1]) + sizes[part] <= room:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


if __name__ == "__main__":
    sys.exit(main())

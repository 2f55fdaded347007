"""Every array's codec, chosen by measurement: bytes and unpacking time of each choice, on a finished cache.

    python -m benchmarks.codecs out/demo.zarr

A codec pays if reading its bytes from a disk and unpacking them takes less time than reading the raw bytes: on a local
SSD, and on a network disk. Inner chunks are packed as the cache packs them, one image or 65,536 points at a time.
"""

import time
from collections.abc import Callable

import click
import numcodecs
import numpy as np
from numpy.typing import NDArray

from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.store import Cache

DISKS = {"ssd": 2e9, "network": 200e6}
"""Bytes a second that one reader gets."""

CODECS: dict[str, Callable[[int], numcodecs.abc.Codec]] = {
    "crc32c": lambda size: numcodecs.CRC32C(),
    "zstd 1": lambda size: numcodecs.Zstd(1),
    "zstd 5": lambda size: numcodecs.Zstd(5),
    "shuffle, zstd 1": lambda size: numcodecs.Blosc("zstd", 1, numcodecs.Blosc.SHUFFLE, typesize=size),
    "shuffle, lz4": lambda size: numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE, typesize=size),
}
SMALL_BYTES = 65_536
"""Arrays below this in a shard are left out: whatever their codec, they do not matter."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("cache")
@click.option("--shards", default=8, show_default=True, help="Shards to measure on.")
def main(cache: str, shards: int) -> None:
    """Print, for every array of a cache, size and unpacking speed by codec, the fastest to read, and ours."""
    opened, _ = Cache.open(cache)
    keys = opened.shard_keys()[:shards]
    print("| array | MiB | " + " | ".join(CODECS) + " | fastest: " + ", ".join(DISKS) + " | ours |")
    print("|" + "---|" * (len(CODECS) + 4))
    for group, specs in SHARD_GROUPS.items():
        seals = opened.seals(GroupPath(key, group) for key in keys)
        for name, spec in specs.arrays.items():
            parts = [opened.read(path, name)[name] for path, seal in seals.items() if name in seal.arrays]
            if sum(part.nbytes for part in parts) < SMALL_BYTES * len(parts) or not parts:
                continue
            chunks = [np.ascontiguousarray(chunk) for part in parts for chunk in _chunks(part, spec.chunk)]
            print(_row(f"{group}/{name}", chunks, "zstd 1" if spec.compressed else "crc32c"), flush=True)


def _chunks(values: NDArray[np.generic], length: int | None) -> list[NDArray[np.generic]]:
    return [values[start : start + (length or len(values))] for start in range(0, len(values), length or len(values))]


def _row(name: str, chunks: list[NDArray[np.generic]], ours: str) -> str:
    raw = sum(chunk.nbytes for chunk in chunks)
    cells, cost = [], {}
    for codec_name, make in CODECS.items():
        codec = make(chunks[0].dtype.itemsize)
        packed = [codec.encode(chunk.view(np.uint8).reshape(-1)) for chunk in chunks]
        size, seconds = sum(map(len, map(bytes, packed))), _unpack_time(codec, packed)
        cells.append(f"{100 * size / raw:.0f} %, {raw / seconds / 1e9:.1f} GB/s")
        cost[codec_name] = {disk: size / speed + seconds for disk, speed in DISKS.items()}
    best = [min(cost, key=lambda name: cost[name][disk]) for disk in DISKS]
    return f"| {name} | {raw / 2**20:.1f} | " + " | ".join(cells) + f" | {', '.join(best)} | {ours} |"


def _unpack_time(codec: numcodecs.abc.Codec, packed: list[bytes], rounds: int = 3) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for chunk in packed:
            codec.decode(chunk)
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()

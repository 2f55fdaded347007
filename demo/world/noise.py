"""Smooth random patterns, looked up in one fixed tile."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Coordinates = NDArray[np.floating]
SIZE = 512


@cache
def tile() -> Floats:
    """Return a seamless (SIZE, SIZE) tile of noise with detail at all scales, mean 0.5, mostly in 0..1."""
    rng = np.random.default_rng(20_240_817)
    frequency = np.fft.fftfreq(SIZE) * SIZE
    radius = np.hypot(frequency[:, None], frequency[None])
    radius[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((SIZE, SIZE))) / np.maximum(radius, 4.0) ** 1.15
    field = np.fft.ifft2(spectrum).real
    noise: Floats = (0.5 + 0.22 * (field - field.mean()) / field.std()).astype(np.float32)
    return noise


def smooth(x: Coordinates, y: Coordinates, period: float | Floats) -> Floats:
    """Return the tile at (x, y) metres, repeated every `period` metres, interpolated between its cells."""
    scale = np.float32(SIZE) / np.asarray(period, np.float32)
    column, row = x * scale, y * scale
    left, top = np.floor(column), np.floor(row)
    a, b = column - left, row - top
    j, i = left.astype(np.int32) & (SIZE - 1), top.astype(np.int32) & (SIZE - 1)
    flat, j2, i2 = tile().ravel(), (j + 1) & (SIZE - 1), (i + 1) & (SIZE - 1)
    i, i2 = i * SIZE, i2 * SIZE
    upper = flat[i + j] * (1 - a) + flat[i + j2] * a
    value: Floats = upper + ((flat[i2 + j] * (1 - a) + flat[i2 + j2] * a) - upper) * b
    return value


def rough(x: Coordinates, y: Coordinates, period: float | Floats) -> Floats:
    """Return the tile's nearest cell at (x, y) metres: cheaper, for fine grain."""
    scale = np.float32(SIZE) / np.asarray(period, np.float32)
    j, i = (np.floor(value * scale).astype(np.int32) & (SIZE - 1) for value in (x, y))
    return tile().ravel()[i * SIZE + j]


def cell(i: Floats, j: Floats, k: Floats | float = 0.0) -> Floats:
    """Return a number in 0..1 for each integer cell (i, j, k), the same every time."""
    mixed = (
        i.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)
        ^ j.astype(np.int64).astype(np.uint32) * np.uint32(0x85EBCA77)
        ^ np.asarray(k).astype(np.int64).astype(np.uint32) * np.uint32(0xC2B2AE3D)
    )
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    mixed = (mixed ^ (mixed >> np.uint32(12))) * np.uint32(0x297A2D39)
    mixed = (mixed ^ (mixed >> np.uint32(15))) >> np.uint32(8)
    value: Floats = mixed.astype(np.float32) / np.float32(1 << 24)
    return value

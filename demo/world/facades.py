"""Textures of house fronts; coordinates are x along the wall, y up, z the number of the wall."""

import numpy as np
from numpy.typing import NDArray

from demo.world.noise import cell, rough, smooth
from demo.world.textures import At, Floats, inside


def facade(at: At) -> Floats:
    """Rows of windows; params: storey, bay, share of glass (1 more: brick), share of lit windows."""
    storey, bay, share, lit = at.params.T
    is_brick = share > 1
    share = share - is_brick
    i, j = np.floor(at.x / bay), np.floor(at.y / storey)
    u, v = at.x / bay - i, at.y / storey - j
    blur_u, blur_v = at.pixel / bay, at.pixel / storey
    window = inside(u, 0.5 - share / 2, 0.5 + share / 2, blur_u) * inside(v, 0.28, 0.82, blur_v)
    frame = inside(u, 0.46 - share / 2, 0.54 + share / 2, blur_u) * inside(v, 0.24, 0.85, blur_v)
    bar = 1 - inside(np.abs(u - 0.5), -1, 0.018, blur_u) * at.fade(0.06)
    random = cell(i, j, np.round(at.z))
    return _glazed(at, _wall(at, is_brick), frame, window * bar, v, random, random > 1 - lit)


def shopfront(at: At) -> Floats:
    """Large panes under a sign board; params: height, bay, share of lit panes."""
    height, bay = at.params[:, 0], at.params[:, 1]
    i = np.floor(at.x / bay)
    u, v = at.x / bay - i, at.y / height
    blur_u, blur_v = at.pixel / bay, at.pixel / height
    pane = inside(u, 0.07, 0.93, blur_u) * inside(v, 0.12, 0.7, blur_v)
    bar = 1 - inside(np.abs(u - 0.33), -1, 0.012, blur_u) * at.fade(0.06)
    random = cell(i, np.floor(v), np.round(at.z))
    board = inside(v, 0.76, 0.93, blur_v) * inside(u, 0.05, 0.95, blur_u)
    wall = at.colours[:, 0] * (0.9 - 0.35 * board * (random > 0.4))[:, None]
    ink = (
        inside(v, 0.8, 0.89, blur_v)
        * inside(u, 0.2, 0.8, blur_u)
        * (cell(np.floor(at.x / 0.16), i, np.round(at.z)) > 0.35)
    )
    wall = wall + (at.colours[:, 2] - wall) * (ink * (0.4 + 0.6 * at.fade(0.08)))[:, None]
    return _glazed(at, wall, pane, pane * bar, v, random, random > 0.85 - at.params[:, 2])


def _wall(at: At, is_brick: NDArray[np.bool_]) -> Floats:
    """Return brick or plaster (H, 3)."""
    row = np.floor(at.y / 0.085)
    across = at.x / 0.26 + 0.5 * (row % 2)
    fade = at.fade(0.085) * is_brick
    mortar = ((at.y / 0.085 - row < 0.16) | (across - np.floor(across) < 0.06)) * fade
    tone = 1 + 0.45 * (cell(np.floor(across), row) - 0.5) * fade + 0.28 * (smooth(at.x, at.y, 11.0) - 0.5)
    tone = tone + 0.15 * (rough(at.x, at.y, 2.0) - 0.5) * at.fade(0.02)
    tone = tone * (1 - 0.18 * np.exp(-at.y / 0.8))
    wall: Floats = (at.colours[:, 0] * (1 - 0.25 * mortar[:, None]) + 0.08 * mortar[:, None]) * tone[:, None]
    return wall


def _glazed(
    at: At, wall: Floats, frame: Floats, glass: Floats, v: Floats, random: Floats, lit: NDArray[np.bool_]
) -> Floats:
    """Return wall colours (H, 3) with frames and panes over them; panes are dark, curtained, or lit."""
    sheen = (0.55 + 0.9 * v + 0.5 * random)[:, None]
    pane = at.colours[:, 1] * sheen
    curtain = ((random > 0.3) & (random < 0.5) & (v > 0.45))[:, None]
    pane = np.where(curtain, np.array((0.4, 0.37, 0.32), np.float32), pane)
    pane = np.where(lit[:, None], np.array((1.5, 1.1, 0.55), np.float32) * (0.5 + 0.6 * random[:, None]), pane)
    colour = wall + (at.colours[:, 2] - wall) * frame[:, None]
    glazed: Floats = (colour + (pane - colour) * glass[:, None]).astype(np.float32)
    return glazed

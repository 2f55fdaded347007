"""Labels spread between similar instances: Y <- W^(t-1) Y, where t = 1 changes nothing (Affinity3D, table 1).

The supplement does not say what W compares. Here two instances are similar if CLIP scores them alike and their boxes
have like sizes.
"""

import numpy as np
from numpy.typing import NDArray

SHARPNESS = 20.0
"""Cosines times this are the logits of an instance's class probabilities."""
SCORE_WIDTH = 0.2
"""A cosine between centred scores that is lower by this divides the similarity by e."""
SMALLEST_SIDE_M = 0.1


def class_probabilities(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the softmax (K, C) of scores (K, C)."""
    raised = np.exp(SHARPNESS * (scores - scores.max(axis=1, keepdims=True)).astype(np.float64))
    probabilities: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return probabilities


def affinity(scores: NDArray[np.floating], extent_m: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the row-normalised similarity W (K, K) of instances.

    exp((cos(s_i - m, s_j - m) - 1) / SCORE_WIDTH) * exp(-|log e_i - log e_j|^2 / 2), m the mean of all scores.

    Args:
        scores: (K, C) CLIP scores.
        extent_m: (K, 3) sides of the box around each instance along the axes of the sensor frame, in metres.
    """
    centred = (scores - scores.mean(axis=0)).astype(np.float64)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    sides = np.log(np.maximum(extent_m, SMALLEST_SIDE_M).astype(np.float64))
    # -|a - b|^2 / 2 is a.b - |a|^2 / 2 - |b|^2 / 2, so that one product gives both terms without an array (K, K, 3).
    features = np.concatenate([unit / np.sqrt(SCORE_WIDTH), sides], axis=1)
    weights: NDArray[np.float64] = features @ features.T
    half = (sides**2).sum(axis=1) / 2
    weights -= half[:, None] + 1 / SCORE_WIDTH
    weights -= half
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def propagate(labels: NDArray[np.float64], weights: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Return W^(t-1) Y (K, C) for labels Y (K, C), weights W (K, K) and t = `steps`, at least 1."""
    for _ in range(steps - 1):
        labels = weights @ labels
    return labels


def classify(
    scores: NDArray[np.floating], pixels: NDArray[np.integer], extent_m: NDArray[np.floating], steps: int, none: int
) -> NDArray[np.uint8]:
    """Return the class (K,) u8 of each instance after propagation; `none` for those that no pixel sees.

    Args:
        scores: (K, C) mean CLIP scores.
        pixels: (K,) pixels that see each instance. Those with none neither give nor take labels.
        extent_m: (K, 3) as in `affinity`.
        steps: t; 1 is the class with the highest score.
        none: the ignore index.
    """
    classes = np.full(len(scores), none, np.uint8)
    seen = np.flatnonzero(pixels > 0)
    if seen.size:
        weights = affinity(scores[seen], extent_m[seen]) if steps > 1 else np.eye(len(seen))
        spread = propagate(class_probabilities(scores[seen]), weights, steps)
        classes[seen] = spread.argmax(axis=1)
    return classes

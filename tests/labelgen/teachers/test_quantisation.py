"""Embeddings as int8 with a scale for each image and channel."""

import warnings

import numpy as np
import pytest
import torch

from labelgen.teachers.quantisation import quantise


def quantise_numpy(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    quantised, scale = quantise(torch.from_numpy(features))
    return quantised.numpy(), scale.numpy()


def test_int8_by_hand() -> None:
    features = np.zeros((1, 1, 2, 3), np.float32)
    features[0, 0, :, 0] = (254, -100)
    features[0, 0, :, 1] = (-1.27, 0.636)
    quantised, scale = quantise_numpy(features)
    assert scale == pytest.approx(np.array([[2, 0.01, 0]]))
    assert quantised[0, 0].T.tolist() == [[127, -50], [-127, 64], [0, 0]]


def test_int8_features_point_where_the_embedding_does() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(2, 36, 64, 256)) * rng.uniform(0.01, 5, 256)).astype(np.float32)
    quantised, scale = quantise_numpy(features)
    assert (quantised.dtype, scale.dtype) == (np.int8, np.float32)
    restored = (quantised * scale[:, None, None]).astype(np.float64)
    cosine = (restored * features).sum(axis=-1) / (
        np.linalg.norm(restored, axis=-1) * np.linalg.norm(features, axis=-1)
    )
    assert 1 - cosine.min() < 1e-4


def test_channels_of_zeros_stay_zeros() -> None:
    features = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    features[..., 2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantised, scale = quantise_numpy(features)
    assert scale[0, 2] == 0 and (np.delete(scale[0], 2) > 0).all()
    assert (quantised[..., 2] == 0).all()
    assert np.isfinite(quantised * scale[:, None, None]).all()


def test_each_image_has_its_own_scale() -> None:
    features = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    quantised, scale = quantise_numpy(np.concatenate([features, 10 * features]))
    np.testing.assert_allclose(scale[1], 10 * scale[0], rtol=1e-6)
    np.testing.assert_array_equal(quantised[0], quantised[1])

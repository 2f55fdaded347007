"""Applies the networks of a run to samples of a cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cache_schemas.group_path import shard_path
from trainer.data.builder import voxel_arrays
from trainer.data.stream import CacheStream, SampleArrays, SampleRef
from trainer.errors import UnfitCacheError
from trainer.evaluation.shared_classes import SharedClasses
from trainer.networks.model import PREFIX, SceneNetworks
from trainer.networks.point_cloud import Cloud
from trainer.run_folder import RunFolder
from trainer.settings import RunSettings
from trainer.vote import refine_pixels, refine_points

IMAGES_AT_ONCE = 8
"""Images of a sample that the 2D network takes at once; a scan can have many more than fit into memory together."""

UNCHANGED = (np.eye(3, dtype=np.float32),)

TURNS_AND_MIRRORS = tuple(
    np.array([[cos, -sin * mirror, 0], [sin, cos * mirror, 0], [0, 0, 1]], np.float32)
    for mirror in (1, -1)
    for cos, sin in ((1, 0), (0, 1), (-1, 0), (0, -1))
)
"""The transforms (3, 3) of clouds in test-time augmentation: y as it is or mirrored, then turned about z by 0 to 270
degrees in steps of 90."""


@dataclass(frozen=True)
class SamplePrediction:
    """Predicted class ids of a sample, as the cache counts its classes; None without the network or its input.

    `image` are those of pixels (I, H, W) u8, `point` those of points (P,) u8.
    """

    image: NDArray[np.uint8] | None
    point: NDArray[np.uint8] | None


class Predictor:
    """Applies the networks to whole samples."""

    def __init__(
        self,
        model: SceneNetworks,
        settings: RunSettings,
        stream: CacheStream,
        samples: Sequence[SampleRef],
        shared: SharedClasses | None = None,
        *,
        tta: bool = False,
    ) -> None:
        """Predict `samples` of a stream with a `model` that was trained with `settings`; it must be in eval mode.

        With `shared` classes, the highest score among these decides. With `tta` (test-time augmentation), class scores
        are the mean over `TURNS_AND_MIRRORS` of the cloud, and over each picture and its mirror image.
        """
        self._model, self._settings = model, settings
        self._stream, self._samples = stream, samples
        self._shared, self._tta = shared, tta

    @torch.inference_mode()
    def predict(self, number: int, *, refine: bool = False) -> SamplePrediction:
        """Return the predictions for sample `number`; with `refine` after the vote within SAM's masks (eq 4).

        Raises:
            DamagedGroupError: if bytes of the cache are not those that were written.
            UnfitCacheError: if the cloud spans too many voxels.
        """
        ref = self._samples[number]
        arrays = self._stream.read(ref)
        pixels = self._pixels(arrays) if self._model.image is not None else None
        points = None
        if self._model.cloud is not None and "points/xyz" in arrays:
            transforms = TURNS_AND_MIRRORS if self._tta else UNCHANGED
            scores = _point_scores(self._model, self._settings, self._stream, ref, arrays, transforms)
            points = self._highest(scores)
        if refine:
            pixels, points = self._refine(pixels, points, arrays)
        return SamplePrediction(
            None if pixels is None else pixels.cpu().numpy(), None if points is None else points.cpu().numpy()
        )

    def _pixels(self, arrays: SampleArrays) -> Tensor:
        """Return the class ids (I, H, W) of pixels."""
        images = torch.from_numpy(arrays["images/rgb"]).permute(0, 3, 1, 2)
        device = self._model.text.device
        found = []
        with torch.autocast(device.type, torch.bfloat16, enabled=self._settings.optimiser.precision == "bf16"):
            for part in images.split(IMAGES_AT_ONCE):
                part = part.to(device)
                scores = self._model.apply_to_images(part).scores
                if self._tta:
                    scores = (scores + self._model.apply_to_images(part.flip(-1)).scores.flip(-1)) / 2
                found.append(self._highest(scores))
        return torch.cat(found)

    def _highest(self, scores: Tensor) -> Tensor:
        """Return the class (N, ..) u8 of the highest of scores (N, C, ..), as the cache counts classes."""
        if self._shared is None:
            return _highest(scores)
        of_run, of_cache = (
            torch.from_numpy(ids).to(scores.device) for ids in (self._shared.of_run, self._shared.of_cache)
        )
        return of_cache[scores[:, of_run].argmax(dim=1)].to(torch.uint8)

    def _refine(
        self, pixels: Tensor | None, points: Tensor | None, arrays: SampleArrays
    ) -> tuple[Tensor | None, Tensor | None]:
        device, classes = self._model.text.device, len(self._stream.manifest.taxonomy.classes)
        mask_ids = torch.from_numpy(arrays["sam/mask_ids"].astype(np.int32)).to(device)
        mask_count = int(mask_ids.max()) + 1
        if pixels is not None:
            pixels = refine_pixels(pixels, mask_ids, mask_count, classes)
        if points is not None:
            point, image, row, col = (
                torch.from_numpy(arrays[f"pairs/{name}"]).to(device) for name in ("point", "image", "row", "col")
            )
            mask_of_pair = mask_ids[image, row, col]
            points = refine_points(
                points, point, image, mask_of_pair, image_count=len(mask_ids), mask_count=mask_count, classes=classes
            )
        return pixels, points


class PointLabeller:
    """Applies the 3D network, which needs points alone."""

    def __init__(
        self, model: SceneNetworks, settings: RunSettings, stream: CacheStream, samples: Sequence[SampleRef]
    ) -> None:
        """Label `samples` of a stream with a `model` that was trained with `settings`; it must be in eval mode."""
        self._model, self._settings = model, settings
        self._stream, self._samples = stream, samples

    @torch.inference_mode()
    def label(self, number: int) -> NDArray[np.uint8]:
        """Return the class ids (P,) of the points of sample `number`.

        Raises:
            DamagedGroupError: if bytes of the cache are not those that were written.
            UnfitCacheError: if the cloud spans too many voxels.
        """
        ref = self._samples[number]
        scores = _point_scores(self._model, self._settings, self._stream, ref, self._stream.read(ref), UNCHANGED)
        labels: NDArray[np.uint8] = _highest(scores).cpu().numpy()
        return labels


def _point_scores(
    model: SceneNetworks,
    settings: RunSettings,
    stream: CacheStream,
    ref: SampleRef,
    arrays: SampleArrays,
    transforms: Sequence[NDArray[np.float32]],
) -> Tensor:
    """Return the class scores (P, C) of a sample's points, as the mean over `transforms` (3, 3) of its cloud."""
    total = torch.zeros(())
    for transform in transforms:
        try:
            found = voxel_arrays(arrays, settings.networks, transform)
        except ValueError as error:
            raise UnfitCacheError(f"{stream.url}/{shard_path(ref.shard)}: sample {ref.token}: {error}") from error
        tensors = {name: torch.from_numpy(values).to(model.text.device) for name, values in found.items()}
        tensors["voxels"] = functional.pad(tensors["voxels"], (1, 0))  # the number of the only sample
        total = model.apply_to_clouds(Cloud(batch_size=1, **tensors)).scores + total
    return total / len(transforms)


def _highest(scores: Tensor) -> Tensor:
    """Return the class (N, ..) u8 of the highest of scores (N, C, ..)."""
    return scores.argmax(dim=1).to(torch.uint8)


def load_model(run: RunFolder, settings: RunSettings, checkpoint: str) -> SceneNetworks:
    """Return the networks of a run's checkpoint for inference, on the GPU, or on the CPU if there is none.

    The text embeddings are those of the training.

    Raises:
        RunFolderError: if there is no such checkpoint, or it cannot be read.
    """
    state = run.load(checkpoint)["model"]
    networks = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    model = SceneNetworks(settings.networks.model_copy(update={"image_weights": None}), networks["text"])
    model.load_state_dict(networks)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

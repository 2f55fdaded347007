"""Applies the networks of a run to samples of a cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cache_schemas.group_path import shard_path
from cache_schemas.taxonomy import IGNORE
from trainer.data.builder import voxel_arrays
from trainer.data.stream import CacheStream, SampleArrays, SampleRef
from trainer.errors import UnfitCacheError
from trainer.evaluation.ensemble import ensemble_cosines, fused_cosines
from trainer.evaluation.shared_classes import SharedClasses
from trainer.networks.model import PREFIX, CloudOutputs, SceneNetworks
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

    `image` are those of pixels (I, H, W) u8, `point` those of points (P,) u8. With the ensemble, `fused_2d` (P,) u8 are
    those of CLIP's features (255: no camera sees the point), and `ensemble` (P,) u8 those of the ensemble.
    """

    image: NDArray[np.uint8] | None
    point: NDArray[np.uint8] | None
    fused_2d: NDArray[np.uint8] | None = None
    ensemble: NDArray[np.uint8] | None = None


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
        ensemble: bool = False,
    ) -> None:
        """Predict `samples` of a stream with a `model` that was trained with `settings`; it must be in eval mode.

        With `shared` classes, the highest score among these decides. With `tta` (test-time augmentation), class scores
        are the mean over `TURNS_AND_MIRRORS` of the cloud, and over each picture and its mirror image. With `ensemble`,
        which needs a 3D network and a stream with `clip/features`, labels of OpenScene's ensemble are added.
        """
        self._model, self._settings = model, settings
        self._stream, self._samples = stream, samples
        self._shared, self._tta, self._ensemble = shared, tta, ensemble

    @torch.inference_mode()
    def predict(self, number: int, *, refine: bool = False) -> SamplePrediction:
        """Return the predictions for sample `number`; with `refine` after the vote within SAM's masks (eq 4).

        Raises:
            DamagedGroupError: if bytes of the cache are not those that were written.
            UnfitCacheError: if the cloud spans too many voxels, or CLIP's features have another width than the run's.
        """
        ref = self._samples[number]
        arrays = self._stream.read(ref)
        pixels = self._pixels(arrays) if self._model.image is not None else None
        points = fused = ensemble = None
        if self._model.cloud is not None and "points/xyz" in arrays:
            scores, cosines = self._point_scores(ref, arrays)
            points = self._highest(scores)
            if cosines is not None:
                fused, ensemble = self._ensemble_labels(arrays, cosines)
        if refine:
            pixels, points = self._refine(pixels, points, arrays)
        found = (pixels, points, fused, ensemble)
        return SamplePrediction(*(None if ids is None else ids.cpu().numpy() for ids in found))

    def _point_scores(self, ref: SampleRef, arrays: SampleArrays) -> tuple[Tensor, Tensor | None]:
        """Return the class scores (P, C) of points, and for the ensemble their cosines (P, C) with the classes."""
        transforms = TURNS_AND_MIRRORS if self._tta else UNCHANGED
        scores = mapped = torch.zeros((), device=self._model.text.device)
        for outputs in _cloud_outputs(self._model, self._settings, self._stream, ref, arrays, transforms):
            scores = scores + outputs.scores / len(transforms)
            if self._ensemble:
                mapped = mapped + self._model.map_points(outputs.features) / len(transforms)
        # Class embeddings are of unit norm, so a score is a cosine times the norm of the mapped feature.
        return scores, scores / mapped.norm(dim=1, keepdim=True).clamp(min=1e-12) if self._ensemble else None

    def _ensemble_labels(self, arrays: SampleArrays, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class ids (P,) u8 of CLIP's features and of the ensemble, from the 3D network's cosines (P, C)."""
        fused, seen = fused_cosines(arrays, self._model.text)
        if self._shared is not None:  # other classes shall not decide which of the two a point takes
            left_out = torch.ones(len(self._model.text), dtype=torch.bool, device=fused.device)
            left_out[self._shared.of_run] = False
            fused, cosines = (values.masked_fill(left_out, -torch.inf) for values in (fused, cosines))
        labels = self._highest(fused).masked_fill(~seen, IGNORE)
        return labels, self._highest(ensemble_cosines(fused, cosines, seen))

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
        arrays = self._stream.read(ref)
        (outputs,) = _cloud_outputs(self._model, self._settings, self._stream, ref, arrays, UNCHANGED)
        labels: NDArray[np.uint8] = _highest(outputs.scores).cpu().numpy()
        return labels


def _cloud_outputs(
    model: SceneNetworks,
    settings: RunSettings,
    stream: CacheStream,
    ref: SampleRef,
    arrays: SampleArrays,
    transforms: Sequence[NDArray[np.float32]],
) -> Iterator[CloudOutputs]:
    """Yield what the 3D network computes from a sample's cloud after each of the `transforms` (3, 3)."""
    for transform in transforms:
        try:
            found = voxel_arrays(arrays, settings.networks, transform)
        except ValueError as error:
            raise UnfitCacheError(f"{stream.url}/{shard_path(ref.shard)}: sample {ref.token}: {error}") from error
        tensors = {name: torch.from_numpy(values).to(model.text.device) for name, values in found.items()}
        tensors["voxels"] = functional.pad(tensors["voxels"], (1, 0))  # the number of the only sample
        yield model.apply_to_clouds(Cloud(batch_size=1, **tensors))


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

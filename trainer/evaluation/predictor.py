"""Applies the networks of a run to samples of a cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cache_schemas.group_path import shard_path
from trainer.data.builder import BatchDataset, voxel_arrays
from trainer.data.sampler import Step
from trainer.data.stream import CacheStream, SampleRef
from trainer.errors import UnfitCacheError
from trainer.networks.model import PREFIX, SceneNetworks
from trainer.networks.point_cloud import Cloud, cloud_of
from trainer.run_folder import RunFolder
from trainer.settings import ClassSettings, RunSettings, TermSettings
from trainer.targets import refine_points
from trainer.vote import refine_pixels

IMAGES_AT_ONCE = 8
"""Images of a sample that the 2D network takes at once; a scan can have many more than fit into memory together."""


@dataclass(frozen=True)
class SamplePrediction:
    """Predicted class ids of a sample: of pixels `image` (I, H, W) u8 and of points `point` (P,) u8."""

    image: NDArray[np.uint8]
    point: NDArray[np.uint8]


class Predictor:
    """Applies both networks to whole, unchanged samples."""

    def __init__(
        self, model: SceneNetworks, settings: RunSettings, stream: CacheStream, samples: Sequence[SampleRef]
    ) -> None:
        """Predict `samples` of a stream with a `model` that was trained with `settings`; it must be in eval mode."""
        self._model, self._device = model, model.text.device
        self._precision = settings.optimiser.precision
        self._batches = BatchDataset(stream, samples, inference_settings(settings))

    @torch.inference_mode()
    def predict(self, number: int, *, refine: bool = False) -> SamplePrediction:
        """Return the predictions for sample `number`; with `refine` after the vote within SAM's masks (eq 4).

        Raises:
            DamagedGroupError: if bytes of the cache are not those that were written.
        """
        batch = self._batches[Step(0, 0, (number,))].to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            parts = batch.rgb.split(IMAGES_AT_ONCE)
            pixels = torch.cat([_highest(self._model.apply_to_images(part).scores) for part in parts])
        points = _highest(self._model.apply_to_clouds(cloud_of(batch)).scores)
        if refine:
            classes = len(self._model.text)
            pixels = refine_pixels(pixels, batch.mask_ids, batch.mask_count, classes)
            points = refine_points(points, batch, classes)
        return SamplePrediction(pixels.cpu().numpy(), points.cpu().numpy())


class PointLabeller:
    """Applies the 3D network, which needs points alone."""

    def __init__(
        self, model: SceneNetworks, settings: RunSettings, stream: CacheStream, samples: Sequence[SampleRef]
    ) -> None:
        """Label `samples` of a stream with a `model` that was trained with `settings`; it must be in eval mode."""
        self._model, self._device = model, model.text.device
        self._networks = settings.networks
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
        try:
            inputs = voxel_arrays(arrays, self._networks)
        except ValueError as error:
            raise UnfitCacheError(f"{self._stream.url}/{shard_path(ref.shard)}: sample {ref.token}: {error}") from error
        tensors = {name: torch.from_numpy(values).to(self._device) for name, values in inputs.items()}
        tensors["voxels"] = functional.pad(tensors["voxels"], (1, 0))  # the number of the only sample
        found = self._model.apply_to_clouds(Cloud(batch_size=1, **tensors))
        labels: NDArray[np.uint8] = _highest(found.scores).cpu().numpy()
        return labels


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
    model = SceneNetworks(inference_settings(settings).networks, networks["text"])
    model.load_state_dict(networks)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def inference_settings(settings: RunSettings) -> RunSettings:
    """Return settings for whole, unchanged samples, of which no features of teachers are needed."""
    return settings.model_copy(
        update={
            "augment": settings.augment.model_copy(update={"images": False, "clouds": False}),
            "stream": settings.stream.model_copy(update={"images": 2**31, "label_source": None}),
            "classes": ClassSettings(),
            "terms": TermSettings(),
            "networks": settings.networks.model_copy(update={"image_weights": None}),
        }
    )

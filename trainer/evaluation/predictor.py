"""Applies the networks of a run to samples of a cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.data.builder import BatchDataset
from trainer.data.sampler import Step
from trainer.data.stream import CacheStream, SampleRef
from trainer.networks.model import CnsModel, Outputs
from trainer.run_folder import RunFolder
from trainer.run_record import RunRecord
from trainer.settings import RunSettings
from trainer.targets import refine_points
from trainer.training.step import predicted_classes
from trainer.vote import refine_pixels


@dataclass(frozen=True)
class SamplePrediction:
    """Predicted class ids of a sample: of pixels `image` (I, H, W) u8 and of points `point` (P,) u8."""

    image: NDArray[np.uint8]
    point: NDArray[np.uint8]


class Predictor:
    """The networks of a run, with the weights of one of its checkpoints."""

    def __init__(
        self, run: RunFolder, record: RunRecord, stream: CacheStream, samples: Sequence[SampleRef], checkpoint: str
    ) -> None:
        """Load a checkpoint onto the GPU, or onto the CPU if there is none.

        Raises:
            RunFolderError: if there is no such checkpoint, or it cannot be read.
        """
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settings = _inference_settings(record.settings)
        self._precision = settings.optimiser.precision
        self._batches = BatchDataset(stream, samples, settings)
        self._model = CnsModel(settings, torch.from_numpy(stream.text_embeddings()), {})
        state = run.load(checkpoint)["model"]
        wanted = self._model.state_dict()
        self._model.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted})
        self._model.to(self._device).eval()

    @torch.inference_mode()
    def predict(self, number: int, *, refine: bool = False) -> SamplePrediction:
        """Return the predictions for sample `number`; with `refine` after the vote within SAM's masks (eq 4).

        Raises:
            DamagedGroupError: if bytes of the cache are not those that were written.
        """
        batch = self._batches[Step(0, 0, (number,))].to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            outputs: Outputs = self._model(batch)
        found = predicted_classes(outputs)
        pixels, points = found.pixels, found.points
        if refine:
            classes = len(self._model.text)
            pixels = refine_pixels(pixels, batch.mask_ids, batch.mask_count, classes)
            points = refine_points(points, batch, classes)
        return SamplePrediction(pixels.cpu().numpy(), points.cpu().numpy())


def _inference_settings(settings: RunSettings) -> RunSettings:
    """Return settings for whole, unchanged samples, and for networks without the latent heads of the training."""
    return settings.model_copy(
        update={
            "augment": settings.augment.model_copy(update={"images": False, "clouds": False}),
            "stream": settings.stream.model_copy(update={"images": 2**31, "label_source": None}),
            "method": settings.method.model_copy(update={"latent": "none"}),
            "networks": settings.networks.model_copy(update={"image_weights": None}),
        }
    )

"""SAM: automatic masks as one id a pixel, and the image embedding that the trainer aligns features to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelgen.settings import SamSettings
from labelgen.teachers.sam.compilation import as_it_is, compiled
from labelgen.teachers.sam.image_encoder import apply_block, encode
from labelgen.teachers.sam.mask_generator import MaskMaker
from labelgen.teachers.sam.mask_painting import Masks, paint_ids
from labelgen.teachers.sam.network import build_sam
from labelgen.teachers.sam.preprocessing import ResizedImage
from labelgen.teachers.sam.quantisation import quantise

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ENCODED_AT_ONCE = {"cpu": 1, "cuda": 6}
"""Images that the encoder takes at once: one stays nearer a CPU's cache, six fill a GPU with 4 GB of scores (ViT-H)."""


@dataclass(frozen=True)
class SamResult:
    """What SAM says of B images.

    `mask_ids` (B, H, W) u16; `features` (B, hf, wf, 256) f16, or i8 with `features_scale` (B, 256) f32.
    """

    mask_ids: NDArray[np.uint16]
    features: NDArray[np.float16] | NDArray[np.int8]
    features_scale: NDArray[np.float32] | None


class SamTeacher:
    """A segment_anything model: automatic masks, and the embedding that they were made from.

    `upload`, `segment` and `fetch` are one call of `run`. On a GPU copies have a stream of their own, so that another
    thread may upload or fetch a batch while one segments; two may not segment at once.
    """

    def __init__(self, settings: SamSettings, device: str = "cpu", precision: "torch.dtype | None" = None) -> None:
        """Build the network and load its weights; `precision` of image tokens is bf16 on CUDA and fp32 elsewhere.

        Raises:
            ConfigError: if there is no such architecture, or no compiler where the settings ask for one.
            WeightsError: if the weights are absent or do not fit.
        """
        import torch

        self.settings = settings
        self.device = device
        self.model = build_sam(settings).to(device).eval().requires_grad_(False)
        self.precision = precision or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
        encoder = self.model.image_encoder.to(self.precision)
        encoder.patch_embed.to(memory_format=torch.channels_last)
        encoder.neck.to(torch.float32, memory_format=torch.channels_last)
        self._fuse = compiled if settings.compile else as_it_is
        self._apply_block = self._fuse(apply_block)
        self._makers: dict[tuple[int, int], MaskMaker] = {}
        self._copies = torch.cuda.Stream(device) if device.startswith("cuda") else None

    def run(self, pictures: Sequence[ResizedImage], size: tuple[int, int]) -> SamResult:
        """Segment pictures of one native size into id maps of `size`."""
        batch = self.upload(pictures)
        return self.fetch(*self.segment(batch, pictures[0].native_size, size))

    def upload(self, pictures: Sequence[ResizedImage]) -> "Tensor":
        """Start to copy pictures of one size to the device: (B, 3, H1, W1) u8, channels last."""
        import torch

        batch = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        if self._copies:
            batch = batch.pin_memory()
        with torch.cuda.stream(self._copies):
            batch = batch.to(self.device, non_blocking=True)
        return batch.permute(0, 3, 1, 2)

    def segment(
        self, batch: "Tensor", native: tuple[int, int], size: tuple[int, int]
    ) -> "tuple[Tensor, Tensor, Tensor | None]":
        """Return id maps (B, H, W), features and their scale, on the device and done, of a batch (B, 3, H1, W1)."""
        import torch

        with torch.inference_mode():
            embeddings = self.embed(batch)
            masks = self.propose(embeddings, native, size)
            ids = torch.stack([paint_ids(found.inside, found.area) for found in masks])
            valid = self.valid_part(embeddings, (batch.shape[2], batch.shape[3]))
            kept = (valid.half(), None) if self.settings.features == "float16" else quantise(valid)
        if self._copies:
            torch.cuda.current_stream().synchronize()
        return ids, *kept

    def fetch(self, ids: "Tensor", features: "Tensor", scale: "Tensor | None") -> SamResult:
        """Bring what `segment` returned to the host."""
        import torch

        with torch.cuda.stream(self._copies):
            on_host = [part if part is None else part.to("cpu", non_blocking=True) for part in (ids, features, scale)]
        if self._copies:
            self._copies.synchronize()
        painted, kept, steps = (part if part is None else part.numpy() for part in on_host)
        return SamResult(painted.astype(np.uint16), kept, steps)

    def embed(self, batch: "Tensor") -> "Tensor":
        """Return image embeddings (B, 256, 64, 64) f32 of a batch (B, 3, H1, W1) u8."""
        import torch

        if self._copies:
            torch.cuda.current_stream().wait_stream(self._copies)
            batch.record_stream(torch.cuda.current_stream())
        encoder = self.model.image_encoder
        squares = map(self.model.preprocess, batch.split(ENCODED_AT_ONCE[batch.device.type]))
        return torch.cat([encode(encoder, some, self._apply_block) for some in squares])

    def propose(self, embeddings: "Tensor", native: tuple[int, int], size: tuple[int, int]) -> list[Masks]:
        """Return the automatic masks, at `size`, of images of one native size with embeddings (B, 256, 64, 64)."""
        if native not in self._makers:
            self._makers[native] = MaskMaker(self.model, native, self.settings, self._fuse)
        return self._makers[native].propose(embeddings.to(self.precision), size)

    def valid_part(self, embeddings: "Tensor", resized: tuple[int, int]) -> "Tensor":
        """Crop embeddings (B, 256, 64, 64) to the part that shows pictures of size (H1, W1): (B, hf, wf, 256)."""
        stride = self.model.image_encoder.img_size // embeddings.shape[-1]
        rows, cols = (-(-length // stride) for length in resized)
        return embeddings[:, :, :rows, :cols].permute(0, 2, 3, 1)

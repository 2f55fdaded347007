"""The SAM teacher: one mask id for each pixel, and the image embedding that the trainer aligns its features to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelgen.settings import SamSettings
from labelgen.teachers.quantisation import quantise
from labelgen.teachers.sam.compilation import compile_with_torch, leave_uncompiled
from labelgen.teachers.sam.image_encoder import apply_block, encode
from labelgen.teachers.sam.mask_generator import MaskGenerator
from labelgen.teachers.sam.mask_painting import Masks, paint_ids
from labelgen.teachers.sam.network import build_sam
from labelgen.teachers.sam.preprocessing import ResizedImage

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ENCODED_AT_ONCE = {"cpu": 1, "cuda": 6}
"""Images that the encoder takes at once: one stays in a CPU's cache, six fill a GPU with 4 GB of scores (ViT-H)."""


@dataclass(frozen=True)
class SamResult:
    """SAM's result for B images.

    `mask_ids` (B, H, W) u16, 0 where there is no mask. `features` (B, h, w, E): the part of the embedding that shows
    the image, f16, or i8 to be multiplied by `features_scale` (B, E) f32.
    """

    mask_ids: NDArray[np.uint16]
    features: NDArray[np.float16] | NDArray[np.int8]
    features_scale: NDArray[np.float32] | None

    def split(self) -> "list[SamResult]":
        """Return the result of each image by itself."""
        scales = (
            [None] * len(self.mask_ids)
            if self.features_scale is None
            else np.split(self.features_scale, len(self.mask_ids))
        )
        return [SamResult(self.mask_ids[i : i + 1], self.features[i : i + 1], scale) for i, scale in enumerate(scales)]


class SamTeacher:
    """A segment_anything model that computes automatic masks and image embeddings.

    `run` is `upload`, `segment` and `fetch` in this order. On a GPU copies have a stream of their own, so one thread
    may upload or fetch a batch while another one segments. Two threads must not segment at the same time.
    """

    def __init__(self, settings: SamSettings, device: str = "cpu", precision: "torch.dtype | None" = None) -> None:
        """Build the network and load its weights.

        Args:
            settings: architecture, weights and thresholds.
            device: a torch device.
            precision: of the image tokens; by default bf16 on CUDA and fp32 elsewhere.

        Raises:
            ConfigError: if there is no such architecture, or no C++ compiler although `compile` is set.
            WeightsError: if the weights are absent or do not fit.
        """
        import torch

        self.settings = settings
        self.device = device
        self.model = build_sam(settings).to(device).eval().requires_grad_(False)
        self.precision = precision or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
        encoder = self.model.image_encoder.to(self.precision)
        # torch declares no overload of Module.to with a memory format.
        encoder.patch_embed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        encoder.neck.to(torch.float32, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compile = compile_with_torch if settings.compile else leave_uncompiled
        self._apply_block = self._compile(apply_block)
        self._generators: dict[tuple[int, int], MaskGenerator] = {}
        self._copy_stream = torch.cuda.Stream(device) if device.startswith("cuda") else None

    def run(self, images: Sequence[ResizedImage], size: tuple[int, int]) -> SamResult:
        """Segment images of one native size into maps of mask ids of `size` (height, width)."""
        batch = self.upload(images)
        return self.fetch(*self.segment(batch, images[0].native_size, size))

    def upload(self, images: Sequence[ResizedImage]) -> "Tensor":
        """Start to copy images of one size to the device: (B, 3, H1, W1) u8, channels last."""
        import torch

        batch = torch.from_numpy(np.stack([image.pixels for image in images]))
        if self._copy_stream:
            batch = batch.pin_memory()
        with torch.cuda.stream(self._copy_stream):
            batch = batch.to(self.device, non_blocking=True)
        return batch.permute(0, 3, 1, 2)

    def segment(
        self, batch: "Tensor", native_size: tuple[int, int], size: tuple[int, int]
    ) -> "tuple[Tensor, Tensor, Tensor | None]":
        """Compute masks and embeddings of a batch (B, 3, H1, W1), and wait until the device has finished.

        Returns:
            Mask ids (B, H, W) i32, features and their scale as in `SamResult`, all on the device.
        """
        import torch

        with torch.inference_mode():
            embeddings = self.embed(batch)
            masks = self.propose(embeddings, native_size, size)
            ids = torch.stack([paint_ids(of_image.inside, of_image.area) for of_image in masks])
            valid = self.valid_part(embeddings, (batch.shape[2], batch.shape[3]))
            features, scale = (valid.half(), None) if self.settings.features == "float16" else quantise(valid)
        if self._copy_stream:
            torch.cuda.current_stream().synchronize()
        return ids, features, scale

    def fetch(self, ids: "Tensor", features: "Tensor", scale: "Tensor | None") -> SamResult:
        """Copy what `segment` returned to the host."""
        import torch

        with torch.cuda.stream(self._copy_stream):
            ids, features = (tensor.to("cpu", non_blocking=True) for tensor in (ids, features))
            scale = None if scale is None else scale.to("cpu", non_blocking=True)
        if self._copy_stream:
            self._copy_stream.synchronize()
        return SamResult(ids.numpy().astype(np.uint16), features.numpy(), None if scale is None else scale.numpy())

    def embed(self, batch: "Tensor") -> "Tensor":
        """Return image embeddings (B, E, h, w) f32 of a batch (B, 3, H1, W1) u8."""
        import torch

        if self._copy_stream:
            torch.cuda.current_stream().wait_stream(self._copy_stream)
            batch.record_stream(torch.cuda.current_stream())
        encoder = self.model.image_encoder
        squares = map(self.model.preprocess, batch.split(ENCODED_AT_ONCE[batch.device.type]))
        return torch.cat([encode(encoder, square, self._apply_block) for square in squares])

    def propose(self, embeddings: "Tensor", native_size: tuple[int, int], size: tuple[int, int]) -> list[Masks]:
        """Return the automatic masks, at `size`, of images of one native size with embeddings (B, E, h, w)."""
        if native_size not in self._generators:
            self._generators[native_size] = MaskGenerator(self.model, native_size, self.settings, self._compile)
        return self._generators[native_size].generate(embeddings.to(self.precision), size)

    def valid_part(self, embeddings: "Tensor", resized_size: tuple[int, int]) -> "Tensor":
        """Crop embeddings (B, E, h, w) to the part that shows the image, not the padding, and put channels last.

        Args:
            embeddings: embeddings of SAM's square input.
            resized_size: height and width (H1, W1) of the image within the square.

        Returns:
            (B, ceil(H1 / stride), ceil(W1 / stride), E), where stride is the encoder's patch size in pixels.
        """
        stride = self.model.image_encoder.img_size // embeddings.shape[-1]
        rows, cols = (-(-length // stride) for length in resized_size)
        return embeddings[:, :, :rows, :cols].permute(0, 2, 3, 1)

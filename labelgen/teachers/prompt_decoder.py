"""SAM's mask decoder, for many single-point prompts of one image: the stock arithmetic without what it repeats.

Image tokens are many and prompt tokens few: a product q . (W k) is taken as (W^T q) . k, which projects a handful of
prompt tokens instead of the whole image, and the position codes' part of it is projected once. In the first block all
prompts meet the same image tokens, in one product. Masks are made only of prompts that somebody wants, without the mask
for unambiguous prompts, and only of the rows that show the image (SAM pads below). Same masks as the stock decoder's up
to rounding.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

MULTIMASK = slice(1, None)
"""The masks that the stock decoder returns for an ambiguous prompt, such as one point."""


@dataclass(frozen=True)
class Answers:
    """What P prompts of one image made of its tokens.

    `predicted_iou` (P, 3); `mask_tokens` (P, 3, E); `image` (P, rows * w, E), the image's tokens row by row.
    """

    predicted_iou: "Tensor"
    mask_tokens: "Tensor"
    image: "Tensor"


class PromptDecoder:
    """The mask decoder of a SAM, set to one image."""

    def __init__(self, model: "Sam", embedding: "Tensor", rows: int) -> None:
        """Take the embedding (E, h, w) of an image that the first `rows` of its h rows of tokens show."""
        self._model = model
        self._decoder: Any = model.mask_decoder
        self._shape = (rows, embedding.shape[2])
        no_mask = model.prompt_encoder.no_mask_embed.weight
        self._image = embedding.flatten(1).T + no_mask
        places = model.prompt_encoder.get_dense_pe()[0].flatten(1).T
        transformer = self._decoder.transformer
        reads = [
            *(block.cross_attn_token_to_image for block in transformer.layers),
            transformer.final_attn_token_to_image,
        ]
        writes = [block.cross_attn_image_to_token for block in transformer.layers]
        self._places = {
            **{attention: _split(attention.k_proj(places)[None], attention.num_heads) for attention in reads},
            **{attention: _split(attention.q_proj(places)[None], attention.num_heads) for attention in writes},
        }

    def answer(self, points: "Tensor") -> Answers:
        """Prompt with points (P, 2), as (x, y) pixels of SAM's input."""
        import torch

        decoder = self._decoder
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        sparse, _ = self._model.prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        prompts = torch.cat([own.expand(len(points), -1, -1), sparse], dim=1)
        tokens, image = self._transform(prompts)
        quality = decoder.iou_prediction_head(tokens[:, 0])[:, MULTIMASK]
        rows, cols = self._shape
        return Answers(quality, tokens[:, 1 : 1 + decoder.num_mask_tokens][:, MULTIMASK], image[:, : rows * cols])

    def masks(self, answers: Answers, wanted: "Tensor") -> "Tensor":
        """Return the logits (M, 4 * rows, 4 * w) of the masks that `wanted` (P, 3) marks, prompt by prompt."""
        import torch

        asked = wanted.any(dim=1)
        weights = torch.stack(
            [
                mlp(answers.mask_tokens[asked, index])
                for index, mlp in enumerate(self._decoder.output_hypernetworks_mlps[MULTIMASK])
            ],
            dim=1,
        )
        fine = self._upscale(answers.image[asked])
        logits = weights @ fine.flatten(1, 3).mT
        rows, cols = self._shape
        cells = logits[wanted[asked]].view(-1, rows, cols, 2, 2, 2, 2)
        return cells.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * rows, 4 * cols)

    def _transform(self, prompts: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the tokens (P, T, E) and image tokens (P, N, E) that the two-way transformer makes of prompts."""
        transformer = self._decoder.transformer
        first, *later = transformer.layers
        tokens = first.norm1(first.self_attn(q=prompts, k=prompts, v=prompts))
        tokens = self._update_tokens(first, tokens, prompts, self._image[None])
        image = self._update_image(first, tokens, prompts, self._image[None])
        for block in later:
            query = tokens + prompts
            tokens = block.norm1(tokens + block.self_attn(q=query, k=query, v=tokens))
            tokens = self._update_tokens(block, tokens, prompts, image)
            image = self._update_image(block, tokens, prompts, image)
        final = transformer.final_attn_token_to_image
        tokens = transformer.norm_final_attn(tokens + self._read(final, tokens + prompts, image))
        return tokens, image

    def _update_tokens(self, block: Any, tokens: "Tensor", prompts: "Tensor", image: "Tensor") -> "Tensor":
        tokens = block.norm2(tokens + self._read(block.cross_attn_token_to_image, tokens + prompts, image))
        updated: Tensor = block.norm3(tokens + block.mlp(tokens))
        return updated

    def _update_image(self, block: Any, tokens: "Tensor", prompts: "Tensor", image: "Tensor") -> "Tensor":
        updated: Tensor = block.norm4(self._write(block.cross_attn_image_to_token, tokens + prompts, tokens, image))
        return updated

    def _read(self, attention: Any, query: "Tensor", image: "Tensor") -> "Tensor":
        """Attend from tokens (P, T, E) to image tokens (P or 1, N, E); returns (P, T, E)."""
        heads = attention.num_heads
        query = _split(attention.q_proj(query), heads)  # P h T d
        absorbed = _to_image(query, attention.k_proj, heads)  # P (h T) E
        scores = _times(absorbed, image.mT).view(*query.shape[:3], -1) + query @ self._places[attention].mT
        weights = (scores * query.shape[-1] ** -0.5).softmax(dim=-1)
        context = _times(weights.flatten(1, 2), image).view(*query.shape[:3], -1)  # P h T E
        values = context @ attention.v_proj.weight.unflatten(0, (heads, -1)).mT
        values = values.transpose(1, 2).flatten(2) + attention.v_proj.bias
        read: Tensor = attention.out_proj(values)
        return read

    def _write(self, attention: Any, key: "Tensor", value: "Tensor", image: "Tensor") -> "Tensor":
        """Add to image tokens (P or 1, N, E) what they attend to among the tokens; returns (P, N, E)."""
        import torch

        heads = attention.num_heads
        key = _split(attention.k_proj(key), heads)  # P h T d
        value = _split(attention.v_proj(value), heads)
        absorbed = _to_image(key, attention.q_proj, heads)
        scores = _times(absorbed, image.mT).view(*key.shape[:3], -1) + key @ self._places[attention].mT  # P h T N
        weights = (scores * key.shape[-1] ** -0.5).softmax(dim=2)
        # Each head's weights sum to one, so a share of the bias in each of its tokens adds up to the bias.
        outputs = _to_image(value, attention.out_proj, heads, columns=True) + attention.out_proj.bias / heads
        return torch.baddbmm(image, weights.flatten(1, 2).mT, outputs)

    def _upscale(self, image: "Tensor") -> "Tensor":
        """Apply the decoder's upscaling to image tokens (P, n, E): (P, n, 4, 4, E / 8), two levels of 2 x 2 cells."""
        import torch

        first, norm, activation, second, last = self._decoder.output_upscaling
        cells = _cells(first, image).unflatten(-1, (4, -1))
        cells -= cells.mean(dim=-1, keepdim=True)
        cells *= (cells.square().mean(dim=-1, keepdim=True) + norm.eps).rsqrt()
        cells = activation(torch.addcmul(norm.bias, cells, norm.weight))
        fine: Tensor = last(_cells(second, cells))
        return fine.unflatten(-1, (4, -1))


def _split(x: "Tensor", heads: int) -> "Tensor":
    """Bring (P, T, h * d) to (P, h, T, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _to_image(tokens: "Tensor", projection: Any, heads: int, columns: bool = False) -> "Tensor":
    """Carry tokens (P, h, T, d) back through a projection of image tokens, head by head: (P, h * T, E)."""
    weight = projection.weight.T if columns else projection.weight
    return (tokens @ weight.unflatten(0, (heads, -1))).flatten(1, 2)


def _times(left: "Tensor", right: "Tensor") -> "Tensor":
    """Multiply (P, a, b) by (P or 1, b, c); one product where all prompts share the right side."""
    if len(right) > 1 or len(left) == 1:
        return left @ right
    return (left.flatten(0, 1) @ right[0]).unflatten(0, left.shape[:2])


def _cells(layer: Any, image: "Tensor") -> "Tensor":
    """Apply a 2 x 2 transposed convolution of stride 2 to image tokens (.., in): (.., 4 * out)."""
    import torch

    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return torch.nn.functional.linear(image, weight, layer.bias.repeat(4))

"""SAM's mask decoder, for many single-point prompts of several images: the stock arithmetic without what it repeats.

Image tokens are many and prompt tokens few: a product q . (W k) is taken as (W^T q) . k, which projects a handful of
prompt tokens instead of the whole image, and the position codes' part of it is projected once. In the first block all
prompts of an image meet the same tokens, in one product. Masks are made only of prompts that somebody wants, without
the mask for unambiguous prompts, and only of the rows that show the image (SAM pads below). Same masks as the stock
decoder's up to rounding.

Image tokens have the precision of the embeddings. On a GPU the time goes into moving them, so bf16 halves it; prompt
tokens stay fp32, and with them the predicted IoU, whose order decides which masks survive.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labelgen.teachers.sam.compilation import Fuse, as_it_is

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

MULTIMASK = slice(1, None)
"""The masks that the stock decoder returns for an ambiguous prompt, such as one point."""


@dataclass(frozen=True)
class Answers:
    """What P prompts, image after image, made of their images' tokens.

    `predicted_iou` (P, 3) and `mask_tokens` (P, 3, E) f32; `image` (P, rows * w, E), each image's tokens row by row.
    """

    predicted_iou: "Tensor"
    mask_tokens: "Tensor"
    image: "Tensor"


class PromptDecoder:
    """The mask decoder of a SAM, for images that the first `rows` of their rows of tokens show."""

    def __init__(self, model: "Sam", rows: int, fuse: Fuse = as_it_is) -> None:
        """Project the position codes, which all images share; `fuse` compiles what works on image tokens."""
        self._model = model
        self._decoder: Any = model.mask_decoder
        self._shape = (rows, model.prompt_encoder.image_embedding_size[1])
        places = model.prompt_encoder.get_dense_pe()[0].flatten(1).T
        transformer = self._decoder.transformer
        reads = [
            *(block.cross_attn_token_to_image for block in transformer.layers),
            transformer.final_attn_token_to_image,
        ]
        writes = [block.cross_attn_image_to_token for block in transformer.layers]
        self._transform = fuse(self._attend_both_ways)
        self._upscale = fuse(self._upscale_cells, dynamic=True)
        self._places = {
            **{attention: _split(attention.k_proj(places)[None], attention.num_heads)[0].mT for attention in reads},
            **{attention: _split(attention.q_proj(places)[None], attention.num_heads)[0].mT for attention in writes},
        }

    def answer(self, embeddings: "Tensor", points: "Tensor") -> Answers:
        """Prompt each image of `embeddings` (B, E, h, w) with all `points` (P, 2), (x, y) pixels of SAM's input."""
        import torch

        decoder = self._decoder
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        sparse, _ = self._model.prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        prompts = torch.cat([own.expand(len(points), -1, -1), sparse], dim=1)
        no_mask = self._model.prompt_encoder.no_mask_embed.weight.to(embeddings.dtype)
        images = embeddings.flatten(2).mT + no_mask
        tokens, image = self._transform(prompts.repeat(len(images), 1, 1), images)
        quality = decoder.iou_prediction_head(tokens[:, 0])[:, MULTIMASK]
        rows, cols = self._shape
        return Answers(quality, tokens[:, 1 : 1 + decoder.num_mask_tokens][:, MULTIMASK], image[:, : rows * cols])

    def masks(self, answers: Answers, prompt: "Tensor", which: "Tensor") -> "Tensor":
        """Return the logits (M, 4 * rows, 4 * w) of mask `which` (M,) of each `prompt` (M,).

        Both are on the host, prompts in rising order, so that the device is never asked how many there are.
        """
        import torch

        distinct, inverse = prompt.unique_consecutive(return_inverse=True)
        asked, of, which = (index.to(answers.image.device, non_blocking=True) for index in (distinct, inverse, which))
        tokens = answers.mask_tokens[asked]
        heads = self._decoder.output_hypernetworks_mlps[MULTIMASK]
        weights = torch.stack([mlp(tokens[:, index]) for index, mlp in enumerate(heads)], dim=1)
        fine = self._upscale(answers.image if len(asked) == len(answers.image) else answers.image[asked])
        logits = weights.to(fine.dtype) @ fine.flatten(1, 3).mT
        return _spread(logits[of, which], *self._shape)

    def _attend_both_ways(self, prompts: "Tensor", images: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the tokens (P, T, E) and image tokens (P, N, E) that prompts (P, T, E) and images (B, N, E) become.

        Prompts come image after image, equally many of each.
        """
        transformer = self._decoder.transformer
        first, *later = transformer.layers
        tokens = first.norm1(first.self_attn(q=prompts, k=prompts, v=prompts))
        tokens = self._update_tokens(first, tokens, prompts, images)
        image = self._update_image(
            first, tokens, prompts, images, images.repeat_interleave(len(prompts) // len(images), dim=0)
        )
        for block in later:
            query = tokens + prompts
            tokens = block.norm1(tokens + block.self_attn(q=query, k=query, v=tokens))
            tokens = self._update_tokens(block, tokens, prompts, image)
            image = self._update_image(block, tokens, prompts, image, image)
        final = transformer.final_attn_token_to_image
        tokens = transformer.norm_final_attn(tokens + self._read(final, tokens + prompts, image))
        return tokens, image

    def _update_tokens(self, block: Any, tokens: "Tensor", prompts: "Tensor", image: "Tensor") -> "Tensor":
        tokens = block.norm2(tokens + self._read(block.cross_attn_token_to_image, tokens + prompts, image))
        updated: Tensor = block.norm3(tokens + block.mlp(tokens))
        return updated

    def _update_image(
        self, block: Any, tokens: "Tensor", prompts: "Tensor", image: "Tensor", each: "Tensor"
    ) -> "Tensor":
        """Return `each` (P, N, E), the prompts' own copies of `image`, after it has attended to tokens; reuses it."""
        self._write(block.cross_attn_image_to_token, tokens + prompts, tokens, image, each)
        return _normalise(each, block.norm4)

    def _read(self, attention: Any, query: "Tensor", image: "Tensor") -> "Tensor":
        """Attend from tokens (P, T, E) to image tokens (P or B, N, E); returns (P, T, E)."""
        heads = attention.num_heads
        query = _split(attention.q_proj(query), heads)
        weights = self._affinity(attention, query, attention.k_proj, image).softmax(dim=-1)
        context = _times(weights.flatten(1, 2), image).view(*query.shape[:3], -1).to(query.dtype)  # P h T E
        values = context @ attention.v_proj.weight.unflatten(0, (heads, -1)).mT
        values = values.transpose(1, 2).flatten(2) + attention.v_proj.bias
        read: Tensor = attention.out_proj(values)
        return read

    def _write(self, attention: Any, key: "Tensor", value: "Tensor", image: "Tensor", each: "Tensor") -> None:
        """Add to `each` (P, N, E) what image tokens (P or B, N, E) attend to among the tokens (P, T, E)."""
        heads = attention.num_heads
        key = _split(attention.k_proj(key), heads)
        value = _split(attention.v_proj(value), heads)
        weights = self._affinity(attention, key, attention.q_proj, image).softmax(dim=2)
        # Each head's weights sum to one, so a share of the bias in each of its tokens adds up to the bias.
        outputs = _to_image(value, attention.out_proj, heads, columns=True) + attention.out_proj.bias / heads
        each.baddbmm_(weights.flatten(1, 2).mT, outputs.to(each.dtype))

    def _affinity(self, attention: Any, tokens: "Tensor", projection: Any, image: "Tensor") -> "Tensor":
        """Return the scaled scores (P, h, T, N) of tokens (P, h, T, d) with image tokens and their places."""
        tokens = tokens * tokens.shape[-1] ** -0.5
        absorbed = _to_image(tokens, projection, attention.num_heads).to(image.dtype)
        scores = _times(absorbed, image.mT).unflatten(1, tokens.shape[1:3])
        places = self._places[attention].to(image.dtype)  # h d N
        by_place = tokens.transpose(0, 1).flatten(1, 2).to(image.dtype) @ places
        return scores.add_(by_place.unflatten(1, (len(tokens), -1)).transpose(0, 1))

    def _upscale_cells(self, image: "Tensor") -> "Tensor":
        """Apply the decoder's upscaling to image tokens (P, n, E): (P, n, 4, 4, E / 8), two levels of 2 x 2 cells."""
        first, norm, activation, second, last = self._decoder.output_upscaling
        cells = activation(_normalise(_cells(first, image).unflatten(-1, (4, -1)), norm))
        fine: Tensor = last(_cells(second, cells))
        return fine.unflatten(-1, (4, -1))


def _spread(cells: "Tensor", rows: int, cols: int) -> "Tensor":
    """Bring logits (M, rows * cols * 16), 2 x 2 cells of 2 x 2 pixels for each token, to (M, 4 * rows, 4 * cols).

    Two pixels side by side move as one number: a CPU copies runs of two no faster than numbers one by one.
    """
    import torch

    pair = torch.int64 if cells.element_size() == 4 else torch.int32
    pairs = cells.view(pair).view(-1, rows, cols, 2, 2, 2)
    return pairs.permute(0, 1, 3, 5, 2, 4).reshape(-1, 4 * rows, 2 * cols).view(cells.dtype)


def _split(x: "Tensor", heads: int) -> "Tensor":
    """Bring (P, T, h * d) to (P, h, T, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _to_image(tokens: "Tensor", projection: Any, heads: int, columns: bool = False) -> "Tensor":
    """Carry tokens (P, h, T, d) back through a projection of image tokens, head by head: (P, h * T, E)."""
    weight = projection.weight.T if columns else projection.weight
    return (tokens @ weight.unflatten(0, (heads, -1))).flatten(1, 2)


def _times(left: "Tensor", right: "Tensor") -> "Tensor":
    """Multiply (P, a, b) by (P or B, b, c); prompts that share a right side do so in one product."""
    return (left.reshape(len(right), -1, left.shape[2]) @ right).view(len(left), left.shape[1], -1)


def _normalise(image: "Tensor", norm: Any) -> "Tensor":
    """Apply a layer norm over the last axis, in the precision of image tokens (.., E)."""
    import torch

    weight, bias = norm.weight.to(image.dtype), norm.bias.to(image.dtype)
    return torch.nn.functional.layer_norm(image, weight.shape, weight, bias, norm.eps)


def _cells(layer: Any, image: "Tensor") -> "Tensor":
    """Apply a 2 x 2 transposed convolution of stride 2 to image tokens (.., in): (.., 4 * out)."""
    import torch

    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2).to(image.dtype)
    return torch.nn.functional.linear(image, weight, layer.bias.repeat(4).to(image.dtype))

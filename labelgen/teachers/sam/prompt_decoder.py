"""SAM's mask decoder for many single-point prompts of several images: the stock arithmetic without its repetitions.

An image has thousands of image tokens, a prompt has a handful of prompt tokens. So:

- The attention score q . (W k) is computed as (W^T q) . k, which projects prompt tokens instead of image tokens. The
  part of the score that comes from the position codes is projected once for all images.
- In the first block all prompts of an image attend to the same image tokens, in one matrix product.
- Masks are computed only for the prompts that the caller chooses, without the single mask for unambiguous prompts, and
  only in the rows that show the image (SAM pads at the bottom).

The masks equal those of the stock decoder up to rounding.

Image tokens have the precision of the embeddings. On a GPU the time is spent on moving them, so bf16 halves it. Prompt
tokens stay fp32, and with them the predicted IoU, whose order decides which masks survive.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from labelgen.teachers.sam.compilation import Compile, leave_uncompiled

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from segment_anything.modeling.common import LayerNorm2d
    from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock, TwoWayTransformer
    from torch import Tensor, nn

    Upscaling = tuple[nn.ConvTranspose2d, LayerNorm2d, nn.Module, nn.ConvTranspose2d, nn.Module]

MULTIMASK = slice(1, None)
"""The masks that the stock decoder returns for an ambiguous prompt, such as one point."""


@dataclass(frozen=True)
class Answers:
    """What the decoder computed for P prompts, image after image.

    `predicted_iou` (P, 3) f32 and `mask_tokens` (P, 3, E) f32, one for each of the three masks of a prompt;
    `image_tokens` (P, rows * w, E), the prompt's own copy of its image's tokens, row by row.
    """

    predicted_iou: "Tensor"
    mask_tokens: "Tensor"
    image_tokens: "Tensor"


class PromptDecoder:
    """The mask decoder of a SAM, for images that lie in the first `token_rows` rows of their image tokens."""

    def __init__(self, model: "Sam", token_rows: int, compile_function: Compile = leave_uncompiled) -> None:
        """Project the position codes, which all images share; `compile_function` compiles the work on image tokens."""
        self._model = model
        self._decoder = model.mask_decoder
        self._token_shape = (token_rows, model.prompt_encoder.image_embedding_size[1])
        position_codes = model.prompt_encoder.get_dense_pe()[0].flatten(1).T
        # The casts are needed because segment_anything and torch declare these as modules of any class.
        self._transformer = cast("TwoWayTransformer", self._decoder.transformer)
        self._blocks = cast("list[TwoWayAttentionBlock]", list(self._transformer.layers))
        self._upscaling = cast("Upscaling", tuple(self._decoder.output_upscaling))
        token_to_image = [
            *(block.cross_attn_token_to_image for block in self._blocks),
            self._transformer.final_attn_token_to_image,
        ]
        image_to_token = [block.cross_attn_image_to_token for block in self._blocks]
        self._transform = compile_function(self._transform_tokens)
        self._upscale = compile_function(self._upscale_tokens, dynamic=True)
        projections = [
            *((attention, attention.k_proj) for attention in token_to_image),
            *((attention, attention.q_proj) for attention in image_to_token),
        ]
        self._positions: dict[Attention, Tensor] = {
            attention: _split_heads(project(position_codes)[None], attention.num_heads)[0].mT
            for attention, project in projections
        }

    def answer(self, embeddings: "Tensor", points: "Tensor") -> Answers:
        """Prompt each image with all points.

        Args:
            embeddings: (B, E, h, w) from SAM's image encoder.
            points: (P, 2), x and y in pixels of SAM's input.

        Returns:
            The answers to B * P prompts, image after image.
        """
        import torch

        decoder = self._decoder
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        sparse, _ = self._model.prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        prompt_tokens = torch.cat([output_tokens.expand(len(points), -1, -1), sparse], dim=1)
        no_mask = self._model.prompt_encoder.no_mask_embed.weight.to(embeddings.dtype)
        images = embeddings.flatten(2).mT + no_mask
        tokens, image_tokens = self._transform(prompt_tokens.repeat(len(images), 1, 1), images)
        predicted_iou = decoder.iou_prediction_head(tokens[:, 0])[:, MULTIMASK]
        mask_tokens = tokens[:, 1 : 1 + decoder.num_mask_tokens][:, MULTIMASK]
        rows, cols = self._token_shape
        return Answers(predicted_iou, mask_tokens, image_tokens[:, : rows * cols])

    def masks(self, answers: Answers, prompt: "Tensor", which: "Tensor") -> "Tensor":
        """Compute M of the masks.

        Args:
            answers: what `answer` returned.
            prompt: (M,), the prompt of each mask, in rising order.
            which: (M,), which of the prompt's three masks. Both index tensors are on the host, so that the host need
                not wait for the device to learn how many prompts there are.

        Returns:
            Logits (M, 4 * token_rows, 4 * w).
        """
        import torch

        distinct, inverse = prompt.unique_consecutive(return_inverse=True)
        chosen, position, which = (
            index.to(answers.image_tokens.device, non_blocking=True) for index in (distinct, inverse, which)
        )
        mask_tokens = answers.mask_tokens[chosen]
        heads = self._decoder.output_hypernetworks_mlps[MULTIMASK]
        weights = torch.stack([head(mask_tokens[:, index]) for index, head in enumerate(heads)], dim=1)
        is_all = len(chosen) == len(answers.image_tokens)
        upscaled = self._upscale(answers.image_tokens if is_all else answers.image_tokens[chosen])
        logits = weights.to(upscaled.dtype) @ upscaled.flatten(1, 3).mT
        return _arrange_pixels(logits[position, which], *self._token_shape)

    def _transform_tokens(self, prompts: "Tensor", images: "Tensor") -> "tuple[Tensor, Tensor]":
        """Apply the two-way transformer to prompts (P, T, E) and the tokens of images (B, N, E).

        Prompts come image after image, equally many for each. Returns tokens (P, T, E) and image tokens (P, N, E).
        """
        first, *later = self._blocks
        tokens = first.norm1(first.self_attn(q=prompts, k=prompts, v=prompts))
        tokens = self._update_tokens(first, tokens, prompts, images)
        copies = images.repeat_interleave(len(prompts) // len(images), dim=0)
        image_tokens = self._update_image(first, tokens, prompts, images, copies)
        for block in later:
            query = tokens + prompts
            tokens = block.norm1(tokens + block.self_attn(q=query, k=query, v=tokens))
            tokens = self._update_tokens(block, tokens, prompts, image_tokens)
            image_tokens = self._update_image(block, tokens, prompts, image_tokens, image_tokens)
        final = self._transformer.final_attn_token_to_image
        attended = self._attend_to_image(final, tokens + prompts, image_tokens)
        return self._transformer.norm_final_attn(tokens + attended), image_tokens

    def _update_tokens(
        self, block: "TwoWayAttentionBlock", tokens: "Tensor", prompts: "Tensor", image: "Tensor"
    ) -> "Tensor":
        """Return tokens (P, T, E) after they attended to the image tokens (P or B, N, E)."""
        attended = self._attend_to_image(block.cross_attn_token_to_image, tokens + prompts, image)
        tokens = block.norm2(tokens + attended)
        updated: Tensor = block.norm3(tokens + block.mlp(tokens))
        return updated

    def _update_image(
        self, block: "TwoWayAttentionBlock", tokens: "Tensor", prompts: "Tensor", image: "Tensor", copies: "Tensor"
    ) -> "Tensor":
        """Return image tokens (P, N, E) after they attended to the tokens (P, T, E).

        `image` (P or B, N, E) are the image tokens, `copies` (P, N, E) the same, one copy for each prompt. The memory
        of `copies` is overwritten.
        """
        self._attend_to_tokens(block.cross_attn_image_to_token, tokens + prompts, tokens, image, copies)
        return _layer_norm(copies, block.norm4)

    def _attend_to_image(self, attention: "Attention", query: "Tensor", image: "Tensor") -> "Tensor":
        """Attend from tokens (P, T, E) to image tokens (P or B, N, E); returns (P, T, E)."""
        heads = attention.num_heads
        query = _split_heads(attention.q_proj(query), heads)
        weights = self._attention_scores(attention, query, attention.k_proj, image).softmax(dim=-1)
        context = (
            _matmul_shared(weights.flatten(1, 2), image).view(*query.shape[:3], -1).to(query.dtype)
        )  # (P, h, T, E)
        values = context @ attention.v_proj.weight.unflatten(0, (heads, -1)).mT
        values = values.transpose(1, 2).flatten(2) + attention.v_proj.bias
        attended: Tensor = attention.out_proj(values)
        return attended

    def _attend_to_tokens(
        self, attention: "Attention", key: "Tensor", value: "Tensor", image: "Tensor", copies: "Tensor"
    ) -> None:
        """Attend from image tokens (P or B, N, E) to tokens (P, T, E), and add the result to `copies` (P, N, E)."""
        heads = attention.num_heads
        key = _split_heads(attention.k_proj(key), heads)
        value = _split_heads(attention.v_proj(value), heads)
        weights = self._attention_scores(attention, key, attention.q_proj, image).softmax(dim=2)
        # The weights of each head sum to one, so its tokens together contribute bias / heads, and all heads the bias.
        projected = _project_back(value, attention.out_proj.weight.T, heads)
        outputs = projected + attention.out_proj.bias / heads
        copies.baddbmm_(weights.flatten(1, 2).mT, outputs.to(copies.dtype))

    def _attention_scores(
        self, attention: "Attention", tokens: "Tensor", projection: "nn.Linear", image: "Tensor"
    ) -> "Tensor":
        """Return the scaled scores (P, h, T, N) of projected tokens (P, h, T, d) with the image tokens (P or B, N, E).

        `projection` is that of the image tokens; it is applied to the tokens instead.
        """
        tokens = tokens * tokens.shape[-1] ** -0.5
        projected = _project_back(tokens, projection.weight, attention.num_heads).to(image.dtype)
        scores: Tensor = _matmul_shared(projected, image.mT).unflatten(1, tokens.shape[1:3])
        positions = self._positions[attention].to(image.dtype)  # (h, d, N)
        position_scores = tokens.transpose(0, 1).flatten(1, 2).to(image.dtype) @ positions
        scores += position_scores.unflatten(1, (len(tokens), -1)).transpose(0, 1)
        return scores

    def _upscale_tokens(self, image: "Tensor") -> "Tensor":
        """Apply the decoder's upscaling to image tokens (P, N, E).

        Returns (P, N, 4, 4, E / 8): each token becomes 2 x 2 cells of 2 x 2 pixels.
        """
        first, norm, activation, second, last_activation = self._upscaling
        cells = activation(_layer_norm(_transposed_convolution(first, image).unflatten(-1, (4, -1)), norm))
        pixels: Tensor = last_activation(_transposed_convolution(second, cells)).unflatten(-1, (4, -1))
        return pixels


def _arrange_pixels(cells: "Tensor", rows: int, cols: int) -> "Tensor":
    """Bring logits (M, rows * cols * 16), 2 x 2 cells of 2 x 2 pixels for each token, to (M, 4 * rows, 4 * cols).

    Two neighbouring pixels are moved as one number: a CPU copies pairs no faster than single numbers.
    """
    import torch

    pair_dtype = torch.int64 if cells.element_size() == 4 else torch.int32
    pairs = cells.view(pair_dtype).view(-1, rows, cols, 2, 2, 2)
    return pairs.permute(0, 1, 3, 5, 2, 4).reshape(-1, 4 * rows, 2 * cols).view(cells.dtype)


def _split_heads(x: "Tensor", heads: int) -> "Tensor":
    """Bring (P, T, heads * d) to (P, heads, T, d)."""
    by_head: Tensor = x.unflatten(-1, (heads, -1))
    return by_head.transpose(1, 2)


def _project_back(tokens: "Tensor", weight: "Tensor", heads: int) -> "Tensor":
    """Multiply tokens (P, heads, T, d) by each head's rows of a weight (heads * d, E): (P, heads * T, E)."""
    weight_by_head: Tensor = weight.unflatten(0, (heads, -1))
    return (tokens @ weight_by_head).flatten(1, 2)


def _matmul_shared(left: "Tensor", right: "Tensor") -> "Tensor":
    """Multiply (P, a, b) by (P or B, b, c); prompts that share a right side are multiplied in one product."""
    return (left.reshape(len(right), -1, left.shape[2]) @ right).view(len(left), left.shape[1], -1)


def _layer_norm(image: "Tensor", norm: "nn.LayerNorm | LayerNorm2d") -> "Tensor":
    """Apply a layer norm over the last axis of image tokens (.., E), in their precision."""
    import torch

    weight, bias = norm.weight.to(image.dtype), norm.bias.to(image.dtype)
    return torch.nn.functional.layer_norm(image, weight.shape, weight, bias, norm.eps)


def _transposed_convolution(layer: "nn.ConvTranspose2d", image: "Tensor") -> "Tensor":
    """Apply a 2 x 2 transposed convolution of stride 2 to image tokens (.., in): (.., 4 * out), pixel by pixel."""
    import torch

    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2).to(image.dtype)
    bias = None if layer.bias is None else layer.bias.repeat(4).to(image.dtype)
    return torch.nn.functional.linear(image, weight, bias)

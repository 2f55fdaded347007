"""Train the demo's SAM on rendered segments: `python -m demo.teachers.train_sam --out FILE`.

The training has four stages and uses no classes:

1. encoder: the encoder alone learns segments; the features of two pixels should be similar if and only if one segment
   covers both.
2. prompts: point prompts are added. Of the decoder's three masks for a point, the best one is trained towards the
   segment under the point (dice loss and balanced cross-entropy), and the IoU head is trained on all three. The decoder
   starts from weights that compare features with the one under the point, and its attention is supervised too: from
   random weights, masks ignore their prompts for thousands of steps.
3. full-size: as stage 2, but at 384 instead of 256 pixels, where small objects become visible.
4. outlines: all pixels get the same weight, relative to the area of segment and mask. Balanced cross-entropy is needed
   at first, since masks stay empty without it, but it makes masks of small objects too large.

The weights of each stage are kept beside FILE, and finished stages are not trained again.
"""

from argparse import Namespace
from typing import Any

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from demo.teachers.architectures import build_demo_sam
from demo.teachers.loop import parse_arguments, train, training_views
from demo.teachers.sam_losses import encoder_loss, prompt_loss
from demo.teachers.sam_squares import at_width, draw_squares
from demo.teachers.sam_stages import ENCODER, FULL_SIZE, OUTLINES, PROMPTS, Stage
from demo.teachers.sam_starts import POSITION_FREQUENCY, grow, revive_masks, start_decoder
from demo.teachers.views import Views


def main() -> None:
    """Render the training views, train all stages, and write the weights as safetensors."""
    args = parse_arguments(__doc__)
    torch.manual_seed(0)
    small = build_demo_sam(ENCODER.side)
    frequencies: Any = small.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    frequencies *= POSITION_FREQUENCY
    small.to(args.device).train()
    views = training_views(args)
    pictures = at_width(views, ENCODER.side)
    train_encoder(small, pictures, np.random.default_rng([0, 0]), args)
    rng = np.random.default_rng([0, 1])
    start_decoder(small, draw_squares(pictures, ENCODER, rng) + draw_squares(pictures, ENCODER, rng), args.device)
    train_prompts(small, PROMPTS, pictures, rng, args)
    model = grow(small, build_demo_sam()).to(args.device).train()
    pictures = at_width(views, FULL_SIZE.side)
    train_prompts(model, FULL_SIZE, pictures, np.random.default_rng([0, 2]), args)
    rng = np.random.default_rng([0, 3])
    revive_masks(model, draw_squares(pictures, OUTLINES, rng), rng, args.device)
    train_prompts(model, OUTLINES, pictures, rng, args)


def train_encoder(model: Sam, pictures: Views, rng: np.random.Generator, args: Namespace) -> None:
    """Train the encoder of a SAM to distinguish segments; `pictures` have the side of the stage's squares."""

    def step() -> tuple[Tensor, float]:
        return encoder_loss(model, draw_squares(pictures, ENCODER, rng), rng, args.device)

    train(model, step, "pair accuracy", ENCODER.steps, rng, args, stage=ENCODER.name)


def train_prompts(model: Sam, stage: Stage, pictures: Views, rng: np.random.Generator, args: Namespace) -> None:
    """Train a whole SAM on point prompts; `pictures` have the side of the stage's squares."""

    def step() -> tuple[Tensor, float]:
        return prompt_loss(model, draw_squares(pictures, stage, rng), stage, rng, args.device)

    train(model, step, "IoU", stage.steps, rng, args, stage=stage.name)


if __name__ == "__main__":
    main()

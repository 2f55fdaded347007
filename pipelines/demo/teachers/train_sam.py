"""Train the demo's SAM on rendered segments: `python -m pipelines.demo.teachers.train_sam --out FILE`.

First the encoder alone learns to tell segments apart: features of two pixels shall be alike if, and only if, one
segment covers both. Then point prompts join: the decoder's three masks answer each, the best of them is taught the mask
of the object or stuff segment under the point (dice and balanced cross-entropy), and the IoU head learns how good all
three are. The decoder starts from weights that compare features with that under the point, and the attention that does
so is taught along; from random weights, thousands of steps go by in which masks ignore their prompts. No class is ever
shown.

All that happens on pictures of 256 pixels; then the weights go on learning at the full size, where small things show.
Last they learn outlines. Balanced cross-entropy, without which masks stay empty at first, calls as many pixels of the
rest a segment as it takes to be as right inside as outside, and masks of small things spill over their edges; so in
the end every pixel counts alike, by the size of the segment and its mask.

What each part makes is kept beside FILE, and parts that are there are not trained again.
"""

from argparse import Namespace

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from labelgen.teachers.sam.architectures import build_demo_sam
from pipelines.demo.teachers.loop import parse_arguments, train, training_views
from pipelines.demo.teachers.sam_course import ENCODER, FULL_SIZE, OUTLINES, PROMPTS, Course
from pipelines.demo.teachers.sam_losses import encoder_loss, prompt_loss
from pipelines.demo.teachers.sam_squares import at_width, draw_squares
from pipelines.demo.teachers.sam_starts import POSITION_FREQUENCY, grow, revive_masks, start_decoder
from pipelines.demo.teachers.views import Views


def main() -> None:
    """Draw the training views, train, and write the weights as safetensors."""
    args = parse_arguments(__doc__)
    torch.manual_seed(0)
    small = build_demo_sam(ENCODER.side)
    small.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix *= POSITION_FREQUENCY
    small.to(args.device).train()
    views = training_views(args)
    pictures = at_width(views, ENCODER.side)
    teach_encoder(small, pictures, np.random.default_rng([0, 0]), args)
    rng = np.random.default_rng([0, 1])
    start_decoder(small, draw_squares(pictures, ENCODER, rng) + draw_squares(pictures, ENCODER, rng), args.device)
    teach_prompts(small, PROMPTS, pictures, rng, args)
    model = grow(small, build_demo_sam()).to(args.device).train()
    pictures = at_width(views, FULL_SIZE.side)
    teach_prompts(model, FULL_SIZE, pictures, np.random.default_rng([0, 2]), args)
    rng = np.random.default_rng([0, 3])
    revive_masks(model, draw_squares(pictures, OUTLINES, rng), rng, args.device)
    teach_prompts(model, OUTLINES, pictures, rng, args)


def teach_encoder(model: Sam, pictures: Views, rng: np.random.Generator, args: Namespace) -> None:
    """Train a SAM's encoder to tell segments apart on pictures of the course's width."""

    def step() -> tuple[Tensor, float]:
        return encoder_loss(model, draw_squares(pictures, ENCODER, rng), rng, args.device)

    train(model, step, "pairs right", ENCODER.steps, rng, args, part=ENCODER.part)


def teach_prompts(model: Sam, course: Course, pictures: Views, rng: np.random.Generator, args: Namespace) -> None:
    """Train all of a SAM to answer points on pictures of the course's width."""

    def step() -> tuple[Tensor, float]:
        return prompt_loss(model, draw_squares(pictures, course, rng), course, rng, args.device)

    train(model, step, "IoU", course.steps, rng, args, part=course.part)


if __name__ == "__main__":
    main()

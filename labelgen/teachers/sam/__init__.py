"""The SAM teacher: automatic masks of images as one mask id for each pixel, and SAM's image embeddings.

Start with `teacher.SamTeacher`. In the order of work:

- `architectures`: the table of networks. `network` builds one and loads its weights.
- `preprocessing`: resizes an image to SAM's input size.
- `image_encoder`: image to embedding.
- `prompt_decoder`: embedding and point prompts to mask logits and predicted IoUs.
- `mask_generator`: all masks of an image, as the stock SamAutomaticMaskGenerator makes them. It uses `mask_suppression`
  (stability filter, non-maximum suppression), `mask_measures` and `box_bounds` (stability scores, areas and boxes at
  native size) and `small_regions`.
- `mask_painting`: overlapping masks to one mask id for each pixel.

`resampling` is nearest-neighbour sampling; `compilation` is torch.compile, for the parts that take it.
"""

"""The CLIP teacher: text embeddings of the classes, and dense class scores of images (MaskCLIP, CNS equation 1).

Start with `teacher.ClipTeacher`. `network` builds and loads the open_clip model, `dense_features` computes a feature
for each patch, `refinements` holds MaskCLIP's prompt denoising and key smoothing.
"""

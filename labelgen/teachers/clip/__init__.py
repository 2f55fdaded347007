"""The CLIP teacher: text embeddings of the classes, and dense class scores of images (MaskCLIP, CNS equation 1).

Start with `teacher.ClipTeacher`. `network` builds and loads the open_clip model, `dense_features` computes a feature
for each patch, in overlapping `windows` if asked, `attention` holds other ways to mix the patches of the last block,
and `refinements` what is done to the scores afterwards.
"""

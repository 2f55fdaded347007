"""From a cache to batches: which samples there are, their order, their arrays, augmentation, voxels, tensors."""

"""The two frozen teachers: CLIP for class scores, SAM for masks and features."""

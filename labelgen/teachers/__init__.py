"""The two frozen teachers: CLIP for class scores (`clip`), SAM for masks and image embeddings (`sam`)."""

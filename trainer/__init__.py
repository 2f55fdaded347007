"""The lightweight trainer: streams the cache and co-trains a 2D and a 3D network."""

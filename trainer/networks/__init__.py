"""The 2D and the 3D network."""

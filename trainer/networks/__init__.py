"""The 2D and the 3D network, and the model that joins them with their heads."""

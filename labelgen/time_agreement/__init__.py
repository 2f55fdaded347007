"""Agreement over time: the keyframes of a shard vote on the labels of one another, in voxels of the world.

Start with `voxels.cells_of_points`, which tells which points vote together; `votes` counts, `pixels` labels pictures.
"""

"""Agreement over time: the keyframes of a shard share what their pictures say, in voxels of the world and in masks.

`voxels` says which points lie in one place, `views` what the pictures say of them, `agreement` averages both, and
`labels` chooses classes.
"""

"""The trainer: it streams samples from a cache and co-trains a 2D and a 3D network.

`fit`, `evaluate` and `predict` each hold the story of one command. `data` reads and prepares samples, `networks` holds
the two networks, `losses`, `targets` and `vote` the method, `training` the parts of a training run, `evaluation` the
parts that score a run.
"""

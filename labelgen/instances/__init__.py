"""Instances of lidar points, and their labels, as in Affinity3D (its supplement is the only text that was available).

clustering -> regions -> affinity -> point_labels. What the supplement leaves open is our choice: how points are
clustered, what the affinity compares, and its temperature.
"""

"""Pseudo labels for images and lidar points from CLIP and SAM: all that decides what a label is."""

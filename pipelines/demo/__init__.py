"""The demo world: rendered street scenes with truth, in the official nuScenes layout."""

from pipelines.demo.layout import make_scene
from pipelines.demo.render import View, render_view
from pipelines.demo.sensors import CameraModel, make_cameras
from pipelines.demo.world import make_world, scene_names, scene_seed

__all__ = [
    "CameraModel",
    "View",
    "make_cameras",
    "make_scene",
    "make_world",
    "render_view",
    "scene_names",
    "scene_seed",
]

"""The demo world: rendered street scenes with truth, in the official nuScenes layout.

Read in this order: `writer` writes a world, `record` records one scene, `layout` makes a scene from a seed, `render`
and `lidar` are its sensors, `annotate` and `tables` write its truth. The other modules model and texture things.
"""

from demo.world.layout import make_scene
from demo.world.render import View, render_view
from demo.world.sensors import CameraModel, make_cameras
from demo.world.writer import make_world, scene_names, scene_seed

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

"""The demo: rendered street scenes with full truth, and small teachers trained on other scenes of the same world.

`world` renders the scenes and writes them in the official nuScenes layout. `teachers` trains the CLIP, the SAM and the
image backbone in `weights`. `registration` lists what setup.cfg registers with the other packages; none of these
imports the demo.
"""

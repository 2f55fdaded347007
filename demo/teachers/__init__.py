"""Training of the demo's CLIP, SAM and image backbone, on scenes that are never labelled."""

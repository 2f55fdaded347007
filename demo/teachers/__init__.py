"""Training of the demo's own CLIP and SAM on a draw of the demo world that no demo cache ever shows."""

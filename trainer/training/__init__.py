"""The parts of a training run: its steps, one step, the optimiser, ranks, stop requests, and what it reports."""

"""The parts that `trainer evaluate` and `trainer predict` share: inputs, predictions, and the report of scores."""

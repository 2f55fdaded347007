"""What a run costs besides its teachers: measured with stand-in teachers, then simulated for up to 256 GPUs."""

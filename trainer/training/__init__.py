"""What every kind that trains has once: the loop, its plan, pace, metrics, skipped images and checkpoints."""

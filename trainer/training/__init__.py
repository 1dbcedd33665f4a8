"""What every kind that trains has once: the plan of its steps, its pace, its checkpoints and how one is taken over."""

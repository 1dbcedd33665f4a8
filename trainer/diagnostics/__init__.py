"""What to look at during a run: the correlation matrix, the effective rank, signs of nothing to learn, probes."""

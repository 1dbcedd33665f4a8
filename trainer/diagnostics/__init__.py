"""What to look at during a run: the correlation matrix, the rank of embeddings, their health, probes."""

"""What is minimised. Pure functions of the embeddings; with several ranks, of the embeddings of all ranks."""

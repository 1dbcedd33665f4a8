"""Batches by (epoch, step), loaded ahead by threads of the rank."""

"""Detectors that start from a backbone."""

"""Evaluations side by side: what was measured of which backbone, with pretrainings grouped over their seeds."""

"""Backbones, projectors, and the form in which a backbone is published."""

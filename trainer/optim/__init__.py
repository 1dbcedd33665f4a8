"""Optimisers, parameter groups by module type, and the learning rate as a function of the step."""

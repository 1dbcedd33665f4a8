"""What is installed here, as a node says it of itself."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform

DISTRIBUTIONS = ("barlow-lab", "torch", "torchvision")


def installed() -> dict[str, str]:
    """Distribution → version, of those that are there, and of Python."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found

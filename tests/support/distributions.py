"""Distributions as a user installs them beside Barlow Lab, for what is found by entry points."""

from pathlib import Path

import pytest


def put_on_path(
    patch: pytest.MonkeyPatch, folder: Path, module: str, code: str, group: str, entries: dict[str, str]
) -> Path:
    """A distribution of one module of `code` below `folder`, whose `entries` name its attributes; returns its place."""
    site = folder / f"site of {module}"
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"{name} = {module}:{place}" for name, place in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
    (site / f"{module}.py").write_text(code)
    patch.syspath_prepend(site)
    return site

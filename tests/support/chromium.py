"""The Chromium of the system, without a window, for tests of what a person sees."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

CHROMIUM = shutil.which("chromium")
PATIENCE = 120_000
"""Milliseconds for a page to show something: MLflow's pages are large, and the machine may be busy."""
_SWITCHES = ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
             "disable-component-update", "disable-sync")  # fmt: skip


@contextmanager
def chromium_in(folder: Path) -> Iterator[Any]:
    """A browser whose profile is in `folder`."""
    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            folder,
            executable_path=CHROMIUM,
            args=[f"--{switch}" for switch in _SWITCHES],
            viewport={"width": 1440, "height": 900},
        )
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield context
        context.close()

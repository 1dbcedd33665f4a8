"""The file that a page of a comparison is written to."""

from __future__ import annotations

from pathlib import Path

from barlow_lab.disk import write_atomic
from barlow_lab.given_files import RefusedFile, open_regular
from service.comparison.plots import GENERATOR

_HEAD_BYTES = 4096


def refuse_other_file(path: Path) -> None:
    """Refuse to replace what is no such page.

    Raises:
        OSError: there is something else, or what is there may not be read.
    """
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        return
    if GENERATOR.encode() not in head:
        raise RefusedFile(str(path), "it is no page of a comparison; name another file, or remove this one")


def write_page(path: Path, page: bytes) -> None:
    """Write the page whole or not at all."""
    write_atomic(path, page.decode())

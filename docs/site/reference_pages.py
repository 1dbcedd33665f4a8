"""python docs/site/reference_pages.py FOLDER: the pages of the site that are made from the code."""

from __future__ import annotations

import sys
from pathlib import Path

import service_pages
import spec_pages


def write(folder: Path) -> list[str]:
    """Write the pages into `folder`, and return their names in the order of the contents."""
    pages = spec_pages.pages() | service_pages.pages()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text)
    return list(pages)


if __name__ == "__main__":
    write(Path(sys.argv[1]))

"""python docs/site/build.py FOLDER: the site, into FOLDER/html. A warning is an error.

The pages are copied beside each other as they lie in the repository, so that their links hold; what the reference pages
say comes from the code.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import reference_pages
from contents import CONTENTS
from sphinx.cmd.build import build_main

SITE = Path(__file__).resolve().parent
ROOT = SITE.parents[1]


def build(folder: Path) -> int:
    """The exit code of Sphinx."""
    source = folder / "source"
    shutil.rmtree(folder, ignore_errors=True)
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for path in (page, *_linked(page)):
            copy = source / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    made = [f"reference/{name}" for name in reference_pages.write(source / "reference")]
    (source / "index.md").write_text(_index(made))
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--jobs", "auto"]
    status: int = build_main([*options, "-c", str(SITE), "-d", str(folder / "read"), str(source), str(folder / "html")])
    return status


def _linked(page: Path) -> set[Path]:
    """The files that a page links to, or shows."""
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    found = {(page.parent / target).resolve() for target in targets if ":" not in target}
    return {path for path in found if path.is_file()}


def _index(made: list[str]) -> str:
    """The page in front: what the README begins with, and the contents."""
    introduction = (ROOT / "README.md").read_text().partition("\n## ")[0]
    text = introduction
    for caption, pages in CONTENTS.items():
        listed = "\n".join(pages or made)
        text += f"\n\n```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n\n{listed}\n```"
    return text + "\n"


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]).resolve()))

"""Sphinx reads this. The site asks the internet for nothing: its fonts are the reader's, its search is in the pages."""

import tomllib
from pathlib import Path

_project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]

project = "Barlow Lab"
author = _project["authors"][0]["name"]
release = version = _project["version"]
project_copyright = author

extensions = ["myst_parser"]
myst_heading_anchors = 4  # links name headings as on GitHub
smartquotes = False  # `--data` in a description stays what is typed

html_theme = "furo"
html_title = f"Barlow Lab {release}"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False

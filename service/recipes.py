"""Spec files to start from: published runs, one a file, and the examples of this project.

They lie in `recipes_dir`, or where the installation has put them: beside the packages in a checkout, below
share/barlow-lab of an environment.
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from barlow_lab.given_files import checked, read_text
from barlow_lab.specs import Spec, SpecError, load_spec_file, parse_experiment, parse_spec
from barlow_lab.specs.common import PublishedSpec
from barlow_lab.specs.files import MAX_BYTES
from service.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One file. `kinds` are those of its jobs by name, `becomes` how many jobs they are with what varies written out,
    `published` what was published of these; a single job has the name "". `fault` is why it cannot be submitted, None
    if it can."""

    name: str
    path: Path
    description: str
    kinds: dict[str, str]
    becomes: int
    published: dict[str, PublishedSpec]
    fault: str | None

    @property
    def is_experiment(self) -> bool:
        """Whether it is submitted as an experiment."""
        return "" not in self.kinds


def folder(settings: Settings) -> Path:
    """Where the recipes are."""
    if settings.recipes_dir is not None:
        return settings.recipes_dir
    root = Path(__file__).resolve().parents[1]
    checkout = (root / "pyproject.toml").is_file()
    return root / "recipes" if checkout else Path(sysconfig.get_path("data")) / "share" / "barlow-lab" / "recipes"


def every(settings: Settings) -> list[Recipe]:
    """All recipes by name. A file that is no spec is one with a fault."""
    return [_read(path, path.stat().st_mtime_ns) for path in sorted(_files(folder(settings)))]


def find(settings: Settings, name: str) -> Recipe | None:
    """The recipe of this name, None if there is none."""
    return next((recipe for recipe in every(settings) if recipe.name == name), None)


def _files(place: Path) -> Iterator[Path]:
    """Everybody may read them over HTTP: no link to elsewhere is one."""
    for path in place.glob("*.yaml"):
        if _NAME.fullmatch(path.stem):
            with suppress(OSError):
                checked(path, within=place)
                yield path


def text_of(path: Path) -> str:
    """The text of a recipe, as it is.

    Raises:
        OSError: it cannot be read, or is larger than a spec may be.
    """
    return read_text(path, most=MAX_BYTES, errors="replace")


@lru_cache(maxsize=500)
def _read(path: Path, _changed: int) -> Recipe:
    text = ""
    try:
        text = text_of(path)
        body = load_spec_file(path)
        whole = isinstance(body, dict) and "jobs" in body
        specs: Mapping[str, Spec] = parse_experiment(body).jobs if whole else {"": parse_spec(body)}
        jobs: dict[str, Any] = body["jobs"] if whole else {"": body}
    except (SpecError, OSError) as error:
        return Recipe(path.stem, path, _description(text), {}, 0, {}, str(error))
    return Recipe(
        name=path.stem,
        path=path,
        description=_description(text),
        kinds={name: job["kind"] for name, job in jobs.items()},
        becomes=len(specs),
        published={name: spec.run.published for name, spec in specs.items() if spec.run.published is not None},
        fault=None,
    )


def _description(text: str) -> str:
    """The first paragraph of the comment that a file begins with."""
    lines = []
    for line in text.splitlines():
        words = line.removeprefix("#").strip()
        if not line.startswith("#") or not words:
            break
        lines.append(words)
    return " ".join(lines)

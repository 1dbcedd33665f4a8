"""What `barlow up` finds on this machine for its worker: a datasets.yaml, and a folder of backbones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from barlow_lab.foreign_text import shown
from barlow_lab.specs import SpecError
from barlow_lab.specs.backbone_files import backbones_below
from barlow_lab.specs.catalogue import built_in_data_sets
from barlow_lab.specs.data_sets import load_data_sets

NAMES = ("datasets.yaml", "datasets.yml")
_NAMED = 10


@dataclass(frozen=True, slots=True)
class HostFiles:
    """Settings of the worker by their names without BARLOW_, and what a user is told of them, a line each."""

    settings: Mapping[str, str]
    said: tuple[str, ...]


def host_files(
    directory: Path, data_sets: Path | None, backbones: Path | None, environment: Mapping[str, str]
) -> HostFiles:
    """What is named on the command line, else in the environment, else lies in the stack's `directory`.

    Raises:
        ValueError: there is no such file or folder, datasets.yaml has faults (names all of them), or two of them are
            found.
    """
    settings: dict[str, str] = {}
    file = _data_sets_file(directory, data_sets, environment)
    if file is not None:
        settings["DATASETS_FILE"] = str(file)
    if backbones is None and environment.get("BARLOW_BACKBONES_DIR"):
        backbones = Path(environment["BARLOW_BACKBONES_DIR"])
    if backbones is not None:
        backbones = backbones.absolute()
        settings["BACKBONES_DIR"] = str(backbones)
    return HostFiles(settings, (_said_of_data_sets(file), _said_of_backbones(backbones)))


def _data_sets_file(directory: Path, given: Path | None, environment: Mapping[str, str]) -> Path | None:
    if given is None and environment.get("BARLOW_DATASETS_FILE"):
        given = Path(environment["BARLOW_DATASETS_FILE"])
    if given is not None:
        return given.absolute()
    data_dir = Path(environment.get("BARLOW_DATA_DIR") or directory / "data").absolute()
    places = [folder / name for folder in dict.fromkeys((data_dir, directory)) for name in NAMES]
    there = [place for place in places if os.path.lexists(place)]
    if len(there) > 1:
        raise ValueError(f"{' and '.join(map(str, there))} are both there; name one by --datasets, or join them")
    return there[0] if there else None


def _said_of_data_sets(file: Path | None) -> str:
    built_in = ", ".join(built_in_data_sets())
    if file is None:
        beside = next((name for name in NAMES if Path(name).is_file()), None)
        unused = f"; the {beside} of this folder is not used without it" if beside else ""
        return f"data sets   {built_in} (built in); --datasets FILE adds yours, docs/data-sets.md says how{unused}"
    try:
        sources = load_data_sets(file)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}; --datasets names a datasets.yaml") from error
    except SpecError as error:
        raise ValueError(f"{file}: {error}") from error
    named = [f"{name} ({source.format})" for name, source in sources.items()]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"data sets   {', '.join(named[:_NAMED]) or 'none'}{more} of {file}, beside {built_in}"


def _said_of_backbones(folder: Path | None) -> str:
    if folder is None:
        return "backbones   no folder of weights; --backbones DIR names one, docs/backbones.md says for what"
    try:
        names = backbones_below(folder).names
    except OSError as error:
        raise ValueError(f"{folder} is no folder of backbones: {error.strerror}; --backbones names one") from error
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"backbones   {', '.join(map(shown, names[:_NAMED])) or 'none yet'}{more} in {folder}"

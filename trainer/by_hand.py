"""What a run started by hand does for itself that a worker would do."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from barlow_lab.disk import write_json
from barlow_lab.given_files import read_json
from barlow_lab.run_folder import BACKBONE_CONFIG, CHECKPOINT_MANIFEST, INPUTS, SPEC, attempt_folder, attempt_folders
from barlow_lab.specs import Spec, SpecError, digest, open_stored, parse_spec
from barlow_lab.specs.backbone_inputs import backbone_input
from barlow_lab.specs.catalogue import built_in_data_sets
from barlow_lab.specs.data_sets import DataSource, ImageFolderSource, ImagesSource, load_data_sets, unchecked
from barlow_lab.specs.image_size import with_size
from barlow_lab.specs.kinds import KindSpec
from trainer.failures import BadSpec

UNLABELLED = "images:"
"""What stands before a folder of `--data` that holds images without labels."""


def hold(run_folder: Path) -> None:
    """Make the run directory and keep it for this process until it ends, however it ends.

    Raises:
        BadSpec: another process started by hand is at work in it.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run_folder, os.O_RDONLY)  # never closed: the lock goes with the process
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise BadSpec(f"another process is at work in {run_folder}; wait for it, or use another --run-dir") from error


def begin(run_folder: Path, spec: Spec, backbone: Path | None, data: Mapping[str, DataSource] | None = None) -> int:
    """Make the folder of the run's next attempt with inputs.json; returns the attempt's number.

    `data` holds data sets by name, of more than this spec's if the user likes.

    Raises:
        BadSpec: the directory holds a run of another spec, or `backbone` is not what this spec asks for.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    _keep_spec(run_folder, spec)
    attempt = max(attempt_folders(run_folder), default=0) + 1
    folder = attempt_folder(run_folder, attempt)
    inputs = {
        "backbone": _backbone_input(backbone, spec),
        "data": {spec.data.name: _data_input((data or {}).get(spec.data.name))},
    }
    folder.mkdir(parents=True)
    write_json(folder / INPUTS, inputs)
    return attempt


def data_sources(
    folders: Mapping[str, str], data_sets: Path | None, warn: Callable[[str], None] = lambda message: None
) -> dict[str, DataSource]:
    """Data sets by name: those of a datasets.yaml, and folders, which come first: a tree of class folders, or with
    `images:` before its path a folder of images without labels. Hands to `warn` which of the file are passed over.

    Raises:
        BadSpec: a folder for a data set that needs none, or the file is no datasets.yaml; names all its faults.
    """
    for name in sorted(folders.keys() & built_in_data_sets().keys()):
        raise BadSpec(f"--data {name}: this data set is built in and needs no folder; give yours another name")
    try:
        found = {} if data_sets is None else load_data_sets(data_sets)
    except OSError as error:
        raise BadSpec(f"--datasets {data_sets} cannot be read: {error.strerror}") from error
    except SpecError as error:
        raise BadSpec(f"--datasets {data_sets}: {error}") from error
    for name in sorted(folders.keys() & found.keys()):
        warn(f"--data {name}={folders[name]} is used, and not what --datasets {data_sets} says of {name!r}")
    return found | {name: _folder_by_hand(folder) for name, folder in folders.items()}


def _folder_by_hand(folder: str) -> DataSource:
    path = folder.removeprefix(UNLABELLED)
    root = Path(path).resolve()
    if path != folder:
        return ImagesSource(format="images", root=root)
    return ImageFolderSource(format="image_folder", root=root)


def image_side(run_folder: Path, spec: Spec, backbone: Path | None, data: Mapping[str, DataSource]) -> int | None:
    """The image size of an evaluation that names none: that of the run which is there already, or else what
    `with_size` makes of the backbone and the data set; None where the spec asks for none."""
    if not spec.leaves_image_size_open:
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = open_stored(read_json(run_folder / SPEC))
        if isinstance(kept, KindSpec) and kept.image_size is not None:
            return kept.image_size
    built_in, source = built_in_data_sets().get(spec.data.name), data.get(spec.data.name)
    entry = built_in if source is None else unchecked(source)
    trained_at, network = (None, None) if backbone is None else _trained_at(backbone)
    sized = with_size(
        spec, trained_at=trained_at, data_side=None if entry is None else entry.image_size, network=network
    )
    return sized.image_size


def _trained_at(backbone: Path) -> tuple[int | None, str | None]:
    """Side of the views that the backbone in a folder was trained on, and its architecture, as far as it says."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        spec = read_json(backbone / CHECKPOINT_MANIFEST)["spec"]
        return int(spec["views"]["size"]), str(spec["backbone"]["name"])
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        config = read_json(backbone / BACKBONE_CONFIG)
        side = config["details"].get("image_size")  # which older exports do not have
        return None if side is None else int(side), str(config["backbone"]["name"])
    return None, None


def _keep_spec(run_folder: Path, spec: Spec) -> None:
    path = run_folder / SPEC
    if not path.exists():
        write_json(path, spec.resolved())
        return
    try:
        there = digest(parse_spec(read_json(path)))
    except ValueError as error:
        raise BadSpec(f"{path} is not a spec that this version reads ({error}); use another --run-dir") from error
    if there != digest(spec):
        raise BadSpec(
            f"{run_folder} holds a run of another spec (digest {there[:12]}, this spec has {digest(spec)[:12]}); "
            "use another --run-dir, or the spec.json in it to go on with that run"
        )


def _data_input(source: DataSource | None) -> dict[str, Any] | None:
    return None if source is None else source.model_dump(mode="json")


def _backbone_input(path: Path | None, spec: Spec) -> dict[str, str] | None:
    if path is None:
        return None
    source = spec.backbone_from_elsewhere
    if source is None or source.random is not None or source.pixels:
        raise BadSpec(
            "--backbone is for an evaluation with backbone_from: {job: NAME}, {file: NAME} or {torchvision: WEIGHTS}, "
            "and this spec would not look at it; change backbone_from, or leave --backbone out"
        )
    if source.torchvision is not None and path.is_dir():
        return {"folder": str(path.resolve())}
    try:
        found = backbone_input(path)
    except ValueError as error:
        raise BadSpec(f"--backbone {path}: {error}") from error
    if source.job is not None and "file" in found:
        raise BadSpec(
            f"--backbone {path} is a file of weights, and a job leaves a folder: give its `backbone` folder, or say "
            f"backbone_from: {{file: {path.name}}}"
        )
    return found

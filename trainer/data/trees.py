"""python -m trainer.data.trees NAME --format FORMAT DIR: a generated data set as files, in the format of real ones."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts it first: no queue.py or random.py of whatever folder this is started in

import argparse
import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from barlow_lab.commands import run_command
from trainer.data.datasets import Images
from trainer.data.errors import DataError
from trainer.data.generated.writing import write_coco, write_image_folder, write_voc
from trainer.data.registry import open_annotated, open_data_set, registered_data_sets

DESCRIPTION = """\
Write a generated data set to disk in the format of real ones, so that the readers of those have something to read.

  python -m trainer.data.trees textures --format image_folder trees/textures
  python -m trainer.data.trees scenes --format voc trees/scenes-voc
  python -m trainer.data.trees scenes --format coco trees/scenes-coco --limit 200

textures has one class an image and is written as
  image_folder    SPLIT/CLASS/NUMBER.png
scenes has boxes and masks and is written as
  voc             Scenes/JPEGImages, Scenes/Annotations, Scenes/ImageSets/Main: boxes; JPEG, so images are not exact
  coco            SPLIT/NUMBER.png, annotations/instances_SPLIT.json: boxes and masks; exact
"""

EPILOG = """\
At the end it prints the entry of datasets.yaml under which jobs find the tree. DIR is made, and appears when all of it
is written; a folder that holds something is left as it is.
"""

_DATA_SETS: Mapping[str, tuple[Callable[..., Images], Mapping[str, Callable[..., dict[str, Any]]]]] = {
    "textures": (open_data_set, {"image_folder": write_image_folder}),
    "scenes": (open_annotated, {"voc": write_voc, "coco": write_coco}),
}
FORMATS = tuple(form for _, writers in _DATA_SETS.values() for form in writers)


def write_tree(
    name: str,
    form: str,
    folder: Path,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write all splits of a data set below `folder`; returns the entry of datasets.yaml of the tree.

    `limit` keeps the first images of each split; `progress` is told after every image how many of how many are done.

    Raises:
        DataError: the data set has no such format, or the folder holds something.
        OSError: the disk does not take it; nothing stays behind.
    """
    opened, writers = _DATA_SETS[name]
    if form not in writers:
        raise DataError(f"{name} cannot be written as {form}; write it as {' or '.join(writers)}")
    folder = folder.absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder} holds something already; name a folder that is new or empty")
    splits = {split: opened(name, split, limit=limit) for split in registered_data_sets()[name].splits}
    total, done = sum(len(data) for data in splits.values()), itertools.count(1)
    # Written beside its place and renamed, so that half a tree is never taken for a whole one.
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        described = writers[form](partial, splits, lambda: progress(next(done), total))
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return {"format": described["format"], "root": str(folder), **described}


def _say(done: int, total: int) -> None:
    """A line that fills as images are written; on anything but a terminal a line for every tenth of them."""
    if not sys.stderr.isatty():
        if 10 * done // total > 10 * (done - 1) // total:
            print(f"{done:,} of {total:,} images", file=sys.stderr, flush=True)
    elif done % 50 == 0 or done == total:
        bar = "#" * (40 * done // total)
        end = "\n" if done == total else ""
        print(f"\r{bar:.<40} {done:,} of {total:,} images", end=end, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.data.trees",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=_DATA_SETS, help="the data set")
    parser.add_argument("--format", required=True, choices=FORMATS, help="of the tree")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where it is written: new or empty")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images of each split only")
    chosen = parser.parse_args(arguments)
    print(f"generating {chosen.name} ...", file=sys.stderr, flush=True)
    try:
        entry = write_tree(chosen.name, chosen.format, chosen.folder, limit=chosen.limit, progress=_say)
    except (DataError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    name = f"{chosen.name}-{chosen.format.replace('_', '-')}"
    print(f"# {chosen.folder} is written. For datasets.yaml; a spec then says data: {name}")
    print(yaml.safe_dump({name: entry}, sort_keys=False, default_flow_style=None, width=120), end="")
    return 0


if __name__ == "__main__":
    run_command("python -m trainer.data.trees", main)

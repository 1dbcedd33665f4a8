"""At the start of a job: which images of its data set's folder no split has, and which records hold nothing or are
there more than once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from barlow_lab.specs.data_sets import DataSource
from trainer.data.binary_files import BinaryImages
from trainer.data.datasets import Images, whole_of
from trainer.data.formats.unused import unused_images
from trainer.data.looking import told_of_records
from trainer.runtime.context import Context


def warn_of_data(
    name: str, source: DataSource | None, opened: Mapping[str, Images], context: Context, phase: str
) -> None:
    """Rank 0 warns of them; `opened` are the splits of the data set `name` that the job has opened, in its `phase`.

    Raises:
        OSError: the disk does not give the records.
    """
    if context.journal is None or source is None:
        return
    for said in unused_images(source, opened, tick=partial(context.working, phase)):
        context.warn(f"data set {name!r}: {said}")
    for split, images in opened.items():
        warn_of_records(name, split, images, context, phase)


def warn_of_records(name: str, split: str, images: Images, context: Context, phase: str) -> None:
    """The same of the records of one split alone."""
    whole = whole_of(images)
    if context.journal is not None and isinstance(whole, BinaryImages):
        for said in told_of_records(whole, partial(context.working, phase)):
            context.warn(f"data set {name!r}, split {split!r}: {said}")

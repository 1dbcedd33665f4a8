"""At the start of a job: which images of its data set's folder no split has, and which of a split hold nothing, are
there more than once, or are masks of others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from barlow_lab.specs.data_sets import DataSource
from trainer.data.checks.inspection import told_of
from trainer.data.datasets import Images, whole_of
from trainer.data.formats.unused import unused_images
from trainer.runtime.context import Context


def warn_of_data(
    name: str, source: DataSource | None, opened: Mapping[str, Images], context: Context, phase: str
) -> None:
    """Rank 0 warns of them; `opened` are the splits of the data set `name` that the job has opened, in its `phase`.

    Raises:
        OSError: the disk does not give the images.
    """
    if context.journal is None or source is None:
        return
    for said in unused_images(source, opened, tick=partial(context.working, phase)):
        context.warn(f"data set {name!r}: {said}")
    for split, images in opened.items():
        warn_of_split(name, split, images, context, phase)


def warn_of_split(name: str, split: str, images: Images, context: Context, phase: str) -> None:
    """The same of one split alone."""
    if context.journal is not None:
        for said in told_of(whole_of(images), partial(context.working, phase)):
            context.warn(f"data set {name!r}, split {split!r}: {said}")

"""At the start of a job: which images of its data set's folder no split has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from trainer.data.datasets import Images
from trainer.data.unused import unused_images
from trainer.runtime.context import Context
from trainer.specs.data_sets import DataSource


def tell_of_unused(
    name: str, source: DataSource | None, opened: Mapping[str, Images], context: Context, phase: str
) -> None:
    """Rank 0 warns of them; `opened` are the splits of the data set `name` that the job has opened, in its `phase`."""
    if context.journal is None or source is None:
        return
    for said in unused_images(source, opened, tick=partial(context.working, phase)):
        context.warn(f"data set {name!r}: {said}")

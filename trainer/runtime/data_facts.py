"""The `data` event: which images an attempt learns from or judges by, so that whoever compares runs can tell."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.data.datasets import Images
from trainer.runtime.context import Context
from trainer.specs.data_sets import DataSource

BUILT_IN = "built in"


def journal_data(context: Context, name: str, source: DataSource | None, splits: Mapping[str, Images]) -> None:
    """Journal the name of the data set, the format it is read in, and of each split its role, fingerprint and number of
    images; `splits` are those that were opened, by role (`train`, `test`), `source` is what they were read from: None
    for a data set that is built in."""
    if context.journal is None:
        return
    context.journal.append(
        "data",
        name=name,
        format=BUILT_IN if source is None else source.format,
        splits={role: {"fingerprint": images.fingerprint, "images": len(images)} for role, images in splits.items()},
    )

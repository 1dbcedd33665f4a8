"""The `data` event: which images an attempt learns from or judges by, so that whoever compares runs can tell."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.data.datasets import Images
from trainer.runtime.context import Context

BUILT_IN = "built in"


def journal_data(context: Context, name: str, splits: Mapping[str, Images]) -> None:
    """Journal the name of the data set, the format it is read in, and of each split its role, fingerprint and number of
    images; `splits` are those that were opened, by role (`train`, `test`)."""
    if context.journal is None:
        return
    source = context.data_source(name)
    context.journal.append(
        "data",
        name=name,
        format=BUILT_IN if source is None else source.format,
        splits={role: {"fingerprint": images.fingerprint, "images": len(images)} for role, images in splits.items()},
    )

"""The `data` event: which images an attempt learns from or judges by, so that whoever compares runs can tell; and what
has changed of them where a run does not go on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from barlow_lab.journal import read_events
from barlow_lab.run_folder import JOURNAL
from barlow_lab.specs.data_sets import DataSource, has_image_files
from trainer.data.datasets import Images
from trainer.runtime.context import Context

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


def other_data(context: Context, name: str, checkpoint: Path) -> str:
    """Why a run does not go on from `checkpoint`, whose data set `name` is another one now: which field of
    datasets.yaml has changed, as far as the journal of its attempt tells, and what to do."""
    was: dict[str, str] = {}
    with suppress(OSError, ValueError):
        for event in read_events(checkpoint.parents[1] / JOURNAL):
            fields = {"data": ("format",), "started": ("value_range",)}.get(event.kind, ())
            was |= {field: event.data[field] for field in fields if field in event.data}
    source = context.data_source(name)
    now = {"format": BUILT_IN if source is None else source.format}
    if source is not None and has_image_files(source):
        now["value_range"] = source.value_range
    changed = [
        f"`{field}` is {now[field]!r} and was {was[field]!r}"
        for field in now
        if was.get(field, now[field]) != now[field]
    ]
    begun = f"the images of data set {name!r} are not those that this run began with"
    if changed:
        return f"{begun}: in datasets.yaml its {', its '.join(changed)}. Put that back, or start a new job"
    return (
        f"{begun}: names or sizes of files, labels, lists or annotations have changed, or this version reads them "
        "otherwise (CHANGELOG.md says what; system folders as @eaDir are passed over now, and of a folder without "
        "labels a limit draws). Put back what it was, or start a new job"
    )

"""The images that a training passes over because they cannot be read: each one is warned of once, and counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from barlow_lab.foreign_text import shown
from trainer.runtime import collectives
from trainer.runtime.context import Context

NAMED = 100
"""So many are named, each by a warning of its own; of more only the number is told."""


class SkippedBatch(Protocol):
    """A batch that knows which images it has others in the place of."""

    @property
    def skipped(self) -> Mapping[str, str]:
        """Name of each, and the cause why it cannot be read."""
        ...


class SkippedImages:
    """Rank 0 says at once what it skips itself; of the other ranks' images it hears at `share`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, None] = {}
        self._shared = 0
        self._told = 0

    @property
    def names(self) -> list[str]:
        """What is known here, each with its cause; after `share` the same on every rank, in one order."""
        return sorted(self._known)

    def remember(self, names: Iterable[str]) -> None:
        """Take over what an earlier attempt has told."""
        self._known = dict.fromkeys(map(shown, names))
        self._shared = self._told = len(self._known)

    def note(self, batch: SkippedBatch) -> None:
        """Take in what this rank skipped for a batch."""
        for name, cause in sorted(batch.skipped.items()):
            self._meet(shown(f"{name} cannot be read: {cause}"))

    def share(self) -> None:
        """Tell the other ranks what is new since the last time; every rank calls it at the same step."""
        new = list(self._known)[self._shared :]
        for said in collectives.all_gather_texts(new, self._context.device):
            self._meet(said)
        self._shared = len(self._known)
        if len(self._known) > max(NAMED, self._told):
            self._told = len(self._known)
            self._context.warn(f"{self._told:,} images cannot be read by now; {NAMED} are named", unreadable=self._told)

    def _meet(self, said: str) -> None:
        if said not in self._known:
            self._known[said] = None
            count = len(self._known)
            if count <= NAMED:
                self._context.warn(f"{said}. The next image is taken instead; {count:,} so far", unreadable=count)

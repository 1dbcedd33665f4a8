"""Who hears what is doubtful of a data set: where nobody does, nothing is looked for."""

from __future__ import annotations


def nobody(said: str) -> None:
    """To be told by readers whose user hears nothing, as those of all ranks but the first: they leave out looks that
    only serve to tell."""

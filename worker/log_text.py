"""Errors in one line of the log."""

from __future__ import annotations

from barlow_lab.foreign_text import shown

LONGEST = 300


def first_line(error: BaseException) -> str:
    """The first line of what an error says, cut; its class where it says nothing."""
    return shown((str(error).splitlines() or [type(error).__name__])[0])[:LONGEST]

"""Texts of others where people read them: no name of a file, a tensor or a class forges a line or drives a terminal."""

from __future__ import annotations

import re
from functools import cache

_UNSHOWN = (
    r"\x00-\x1f\x7f-\x9f"  # C0 and C1: line feeds, carriage returns, ESC and CSI
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of the text around it
    r"\u2028\u2029"  # ends of a line and of a paragraph
    r"\ufff9-\ufffb"  # interlinear annotations
    r"\ud800-\udfff"  # halves of pairs: bytes of a name that are no UTF-8
)


def shown(text: str, *, keep: str = "") -> str:
    """`text` with what is not a character to be seen as its escape: `\\x1b`, `\\u202e`. Escaping twice changes nothing.

    For showing alone: by its escaped name nothing is found. `keep` are characters that stay, as the line feeds of a
    text of several lines that are ours.
    """
    return _pattern(keep).sub(_escape, text)


def shown_lines(text: str) -> str:
    """The same for a text of several lines: line feeds and tabs stay."""
    return shown(text, keep="\n\t")


@cache
def _pattern(keep: str) -> re.Pattern[str]:
    stays = f"(?![{re.escape(keep)}])" if keep else ""
    return re.compile(f"{stays}[{_UNSHOWN}]")


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")

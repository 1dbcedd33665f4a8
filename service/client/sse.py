"""Server-sent events, as a client reads them (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One event of a stream."""

    event: str
    data: str
    id: str | None


_END = re.compile(r"\r\n|\n|\r(?!\Z)")
"""The end of a line; a carriage return at the end of what has come may be half of one."""


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a stream that comes in pieces. httpx would end them at other characters as well, such as U+2028,
    which stand within what is sent."""
    left = ""
    for piece in pieces:
        *whole, left = _END.split(left + piece)
        yield from whole
    if left:
        yield left.removesuffix("\r")


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """Events of a stream of lines; comments and an event without its empty line at the end are left out."""
    event, data, last_id = "message", list[str](), None
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Message(event, "\n".join(data), last_id)
            event, data = "message", []
        elif field == "event":
            event = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last_id = value

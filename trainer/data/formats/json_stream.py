"""Lists of objects in a JSON file, one object at a time: COCO's 450 MB would take gigabytes as Python's objects."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barlow_lab.given_files import open_regular, parse_json
from trainer.data.errors import DataError

_BLANK = re.compile(r"[ \t\n\r]*")
_BOM = "\xef\xbb\xbf"
"""The mark that some editors put before UTF-8, as Latin-1."""
_DECODER = json.JSONDecoder()
PIECE = 1 << 20
MAX_VALUE = 1 << 30
"""Bytes of one object of a list, or of a value that is passed over: it is held in memory as a whole."""


@dataclass(frozen=True, slots=True)
class Item:
    """One object of one of the file's lists, and the bytes of the file that it stands in."""

    list: str
    value: Any
    start: int
    length: int


class JsonLists:
    """A file whose top level is an object of lists, as {"images": [...], "annotations": [...]}.

    The bytes are taken for Latin-1 while the ends of objects are looked for, so that places in the text are places in
    the file; an object that has more than ASCII is then read again as what it is, UTF-8.
    """

    def __init__(self, path: Path, tick: Callable[[], None]) -> None:
        """`tick` is called for every object."""
        self.path = path
        self.sha256 = ""
        """SHA-256 of the file, once it has been read to its end,"""
        self.lists: set[str] = set()
        """and which of the lists that were asked for it has."""
        self._tick = tick
        self._text = ""
        self._place = 0
        self._dropped = 0
        self._digest = hashlib.sha256()

    def items(self, *lists: str) -> Iterator[Item]:
        """The objects of these lists, in the order of the file; other values are passed over.

        Raises:
            DataError: the file is no such JSON, or it ends too early.
            OSError: it cannot be read.
        """
        with open_regular(self.path) as self._file:
            if self._next() and self._text.startswith(_BOM):
                self._place = len(_BOM)
            self._expect("{")
            self.lists = set()
            if self._next() == "}":
                self._place += 1
            else:
                while True:
                    key = self._value()
                    if not isinstance(key, str):
                        raise self._fault("a name is expected")
                    if key in self.lists:
                        raise self._fault(f"{key!r} is there twice")
                    self.lists |= {key} & set(lists)
                    self._expect(":")
                    if key in lists and self._next() == "[":
                        yield from self._objects(key)
                    elif key in lists:
                        raise self._fault(f"{key!r} is not a list")
                    else:
                        self._value()
                    if self._either(",", "}") == "}":
                        break
            if self._next():
                raise self._fault("something stands behind its end")
        self.sha256 = self._digest.hexdigest()

    def _objects(self, key: str) -> Iterator[Item]:
        self._expect("[")
        if self._next() == "]":
            self._place += 1
            return
        while True:
            self._next()
            start = self._dropped + self._place
            value = self._value()
            if not isinstance(value, dict):
                raise self._fault(f"an object is expected in {key!r}")
            self._tick()
            yield Item(key, value, start, self._dropped + self._place - start)
            if self._either(",", "]") == "]":
                return

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except (ValueError, RecursionError) as error:
                # Perhaps only cut by the end of what has been read: twice as much each time, or it would be quadratic.
                if isinstance(error, RecursionError):
                    raise self._fault("it is nested too deeply") from error
                if len(self._text) - self._place > MAX_VALUE:
                    raise self._fault(f"one value of it has more than {MAX_VALUE:,} bytes") from error
                if not self._more(len(self._text) - self._place):
                    raise self._fault(f"{error}") from error
                continue
            if end == len(self._text) and self._more(0):
                continue  # a number may go on
            text = self._text[self._place : end]
            self._place = end
            return value if text.isascii() else self._as_utf8(text)

    def _as_utf8(self, text: str) -> Any:
        try:
            return parse_json(text.encode("latin-1"))
        except ValueError as error:
            raise self._fault(f"{error}") from error

    def _next(self) -> str:
        """The next character that is not blank; empty at the end of the file."""
        while True:
            blank = _BLANK.match(self._text, self._place)
            assert blank is not None
            self._place = blank.end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more(0):
                return ""

    def _expect(self, character: str) -> None:
        self._either(character)

    def _either(self, *characters: str) -> str:
        found = self._next()
        if found not in characters or not found:
            raise self._fault(f"{' or '.join(characters)} is expected")
        self._place += 1
        return found

    def _more(self, at_least: int) -> bool:
        read = self._file.read(max(PIECE, at_least))
        if not read:
            return False
        self._digest.update(read)
        self._dropped += self._place
        self._text = self._text[self._place :] + read.decode("latin-1")
        self._place = 0
        return True

    def _fault(self, said: str) -> DataError:
        return DataError(
            f"{self.path} cannot be read as JSON at byte {self._dropped + self._place:,}: {said}; is the file whole?"
        )

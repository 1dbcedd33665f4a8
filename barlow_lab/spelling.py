"""Did you mean: the known name nearest to an unknown one, at a cost that no input can raise."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

COMPARED = 10
"""Unknown names of one reading that are compared with the known ones; who has mistyped more finds the rest alike."""
CANDIDATES = 150
"""Known names that one is compared with: those of about its length, the first so many."""
LONGEST = 50
"""Characters of a name that is compared. The cost of one comparison grows with the square of it."""

_left: ContextVar[list[int] | None] = ContextVar("spelling", default=None)


@contextmanager
def one_reading() -> Iterator[None]:
    """Within it COMPARED names are compared, over all calls of `nearest`; a reading within another one is part of it.

    Comparing names is the dearest thing that reading a spec does, and whoever wrote the spec decides how many of them
    are unknown.
    """
    if _left.get() is not None:
        yield
        return
    mark = _left.set([COMPARED])
    try:
        yield
    finally:
        _left.reset(mark)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `word`; None where none is like it, or where no more are to be compared."""
    left = _left.get()
    if len(word) > LONGEST or (left is not None and left[0] <= 0):
        return None
    if left is not None:
        left[0] -= 1
    apart = max(2, len(word) // 2)
    alike = (name for name in known if abs(len(name) - len(word)) <= apart)
    near = difflib.get_close_matches(word, itertools.islice(alike, CANDIDATES), n=1)
    return near[0] if near else None

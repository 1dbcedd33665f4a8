"""Which image a line of a list of labelled images means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

SEVERAL = -1
"""In place of an image: it is not one alone."""


@dataclass(frozen=True, slots=True)
class Meant:
    """What a line means."""

    place: int
    """Of the image, or SEVERAL."""
    path: tuple[str, ...]
    """What the line says of it: folders and file, without a class behind them."""
    before: tuple[str, ...] = ()
    """The folders of `path` that stand before what tells the image from others."""


class _Places:
    """Images by a path and their class, and by the path alone. Where several have one, that alone is kept: they may be
    as many as the lines that name them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], int] = {}

    def add(self, path: str, of: str, place: int) -> None:
        for key in ((path, of), (path, None)):
            if self._known.setdefault(key, place) != place:
                self._known[key] = SEVERAL

    def get(self, path: str, of: str | None = None) -> int | None:
        """The image of this path, and of the class `of` if it is given: None where there is none, or SEVERAL."""
        return self._known.get((path, of))


class Finder:
    """Images by what a line of a list says."""

    def __init__(
        self, lines: Sequence[str], names: Sequence[str], classes: Sequence[str], form: Callable[[str], str]
    ) -> None:
        """Of `names` those are kept whose file some line may name: a list has a hundredth of ImageNet's."""
        self._form = form
        self._every_class = {form(name) for name in set(classes)}
        said = [path for line in lines for text, _ in _readings(form(line)) if (path := _folders(text))]
        files, ends, lengths = {path[-1] for path in said}, {"/".join(path) for path in said}, {len(p) for p in said}
        self._whole, self._ends, self._files = _Places(), _Places(), _Places()
        self._deepest = 0
        for place, (name, class_) in enumerate(zip(names, classes, strict=True)):
            if (file := form(name).rpartition("/")[2]) not in files:
                continue
            path, of = _folders(form(name)), form(class_)
            self._deepest = max(self._deepest, len(path))
            self._whole.add("/".join(path), of, place)
            self._files.add(file, of, place)
            for length in range(1, len(path) + 1):
                if length in lengths and (end := "/".join(path[-length:])) in ends:
                    self._ends.add(end, of, place)

    def place(self, line: str) -> Meant | None:
        """The image that the line may mean, that of which it says most; None where there is none."""
        for text, of in _readings(self._form(line)):
            said = _folders(text)
            found = self._named(said, of) if said else None
            if found is not None:
                return found
        return None

    def _named(self, said: list[str], of: str | None) -> Meant | None:
        first = said[-2] if len(said) > 1 else None
        # The path of an image, perhaps with folders before it. Before a file name alone the folder must not be another
        # class.
        for start in range(max(0, len(said) - self._deepest), len(said)):
            path, alone = "/".join(said[start:]), start == len(said) - 1
            class_ = first if alone and first in self._every_class else None
            if self._whole.get(path, class_) is not None:
                known = class_ is not None
                place = None if known and of not in (None, class_) else self._whole.get(path, of or class_)
                return None if place is None else Meant(place, tuple(said), tuple(said[: start - known]))
        # Its end, or the class and the file.
        end = self._ends.get("/".join(said), of)
        file = self._files.get(said[-1], first) if first is not None and of in (None, first) else None
        # A shortened name may begin with a folder that is called like a class; without any image of that class the
        # line most likely means one that is not there.
        if of is None and first is not None and said[0] in self._every_class:
            of_class = self._ends.get("/".join(said), said[0]) is not None or (file is not None and first == said[0])
            if not of_class:
                return None
        found = {place for place in (end, file) if place is not None}
        if len(found) > 1:
            return Meant(SEVERAL, tuple(said))
        before = () if end is not None else tuple(said[:-2])
        return Meant(found.pop(), tuple(said), before) if found else None


def _readings(line: str) -> list[tuple[str, str | None]]:
    """What a line may say: a name, or a name and its class."""
    parts = line.rsplit(None, 1)
    return [(line, None)] + ([(parts[0], parts[1])] if len(parts) == 2 else [])


def _folders(path: str) -> list[str]:
    """The parts of a path; `..` takes the folder before it away, and at the beginning says nothing."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts

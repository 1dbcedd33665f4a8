"""What annotations in JSON have in common: fields of an object, ids, categories."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainer.data.errors import DataError
from trainer.data.formats.json_stream import Item, JsonLists

T = TypeVar("T")

_WORDS = {int: "an integer", str: "a text"}


def field(item: Item, name: str, kind: type[T], where: str) -> T:
    """A field of an object of the file `where`.

    Raises:
        DataError: it is missing, or of another type.
    """
    value: Any = item.value.get(name)
    if kind is int and isinstance(value, float):
        value = value if (number := whole(value)) is None else number
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: {name!r} of {_called(item)} is {value!r}; {_WORDS[kind]} is expected")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise DataError(f"{where}: {name!r} of {_called(item)} is too large")
    return value


def whole(value: Any) -> int | None:
    """A whole number, also one that was written as 3.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def named_in_json(path: Path, folder: Path, tick: Callable[[], None]) -> Iterator[bytes]:
    """Paths of the files below `folder` that the list "images" names.

    Raises:
        DataError: it cannot be read.
        OSError: it is not there.
    """
    # The other lists are asked for as well: a value that is passed over is held in memory as a whole.
    for item in JsonLists(path, tick).items("images", "annotations", "categories"):
        if item.list != "images":
            continue
        yield os.path.join(
            os.fsencode(folder), field(item, "file_name", str, path.name).encode("utf-8", "surrogatepass")
        )


def places_of(wanted: NDArray[np.int64], ids: NDArray[np.int64], what: str, where: str) -> NDArray[np.int64]:
    """Where each of `wanted` stands among `ids`.

    Raises:
        DataError: an id stands twice, or one that is wanted is not there.
    """
    order = np.argsort(ids, kind="stable")
    in_order = ids[order]
    twice = in_order[1:][in_order[1:] == in_order[:-1]]
    if len(twice):
        raise DataError(f"{where} has several entries of {what} {twice[0]}; an id stands for one")
    if not len(ids) and len(wanted):
        raise DataError(f"{where} has no {what} at all, and an annotation names {wanted[0]}")
    places = np.minimum(np.searchsorted(in_order, wanted), max(0, len(ids) - 1))
    unknown = wanted[in_order[places] != wanted] if len(wanted) else wanted
    if len(unknown):
        raise DataError(f"{where}: an annotation names {what} {unknown[0]}, which the file does not have")
    return order[places]


class Categories:
    """Categories by id: labels are their places in ascending order of the ids."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._by_id: dict[int, str] = {}

    def add(self, item: Item) -> None:
        """Take in one category.

        Raises:
            DataError: it has no id, or one that another has.
        """
        number = field(item, "id", int, self._where)
        if number in self._by_id:
            raise DataError(f"{self._where} has several entries of category {number}; an id stands for one")
        self._by_id[number] = field(item, "name", str, self._where)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_id[number] for number in sorted(self._by_id))

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids of the names, in their order."""
        return np.array(sorted(self._by_id), dtype=np.int64)

    def labels_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels of category ids, (n,) int64.

        Raises:
            DataError: one that is not there.
        """
        return places_of(ids, self.ids, "category", self._where)


def _called(item: Item) -> str:
    number = item.value.get("id")
    return f"an entry of {item.list!r}" if number is None else f"entry {number} of {item.list!r}"

"""Files of weights that others wrote: tensors by name, and nothing of the file is executed.

1. A file of safetensors, or of torch.save, read as tensors, numbers, texts and containers of them alone.
2. While the value has exactly one of the WRAPPERS, what is below it is taken.
3. What else of the file holds weights, as a copy that is a moving average does, is told with where it stands.
"""

from __future__ import annotations

import pickle
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from barlow_lab.foreign_text import shown
from barlow_lab.given_files import checked, refuse_compressed

WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher")
MAX_BYTES = 2**34
"""Twice the largest network of the catalogue with the state of its optimiser."""
LEVELS = 4
"""Wrappers around one another."""
NAMED = 5
"""Keys that an error names."""
LONGEST_KEY = 100
"""Characters of one of them."""

_ZIP = b"PK\x03\x04"


Keys = tuple[str | int, ...]
"""Where in a file something stands: keys of mappings, and places of lists, from the top."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """What is read of a file: the tensors that are taken, `under` these keys, and `others` that hold weights, too."""

    taken: dict[str, Tensor]
    under: Keys
    others: dict[Keys, dict[str, Tensor]]


def read_tensors(path: Path) -> Tensors:
    """The named tensors of a file, without wrappers; on the CPU, perhaps mapped from the file.

    Raises:
        ValueError: the file is too large, damaged, holds anything but data, or no named tensors, or in several places
            that might be meant alike.
    """
    whole = _read(path)
    under, value = _named(whole, path)
    tensors = {str(name): item for name, item in value.items() if isinstance(item, Tensor)}
    others = _others(whole, value)
    if tensors:
        return Tensors(tensors, under, others)
    if others:
        first, there = next(iter(others.items()))
        raise ValueError(f"{path.name} holds weights under {told(others)}; {by_themselves(path, first, names=there)}")
    some = ", ".join(_key(key) for key in islice(value, NAMED)) if value else "nothing"
    raise ValueError(f"{path.name} holds no named tensors but {some}; save the network's state_dict")


def place(under: Keys, prefix: str = "") -> str:
    """Where tensors stand, in words: keys, and what the names of those that are meant begin with."""
    parts = [*(key if isinstance(key, int) else _key(key) for key in under), _key(prefix.rstrip("."))]
    return ".".join(str(part) for part in parts if part != "") or "the top of the file"


def told(others: Mapping[Keys, object]) -> str:
    """The first of these places."""
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return ", ".join(place(keys) for keys in islice(others, NAMED)) + more


def by_themselves(path: Path, under: Keys, prefix: str = "", names: Iterable[str] = ("weight",)) -> str:
    """How to have the weights there judged, those whose names begin with `prefix`: the line that saves them alone,
    where their `names` are more than places in a list."""
    if all(name.isdecimal() for name in names):
        return "put them, which have no names there, into the network that they are of, save its state_dict alone"
    if any(len(str(part)) > LONGEST_KEY for part in (*under, prefix)):
        return "save those that you mean alone"
    if path.suffix == ".safetensors":
        read = f"safetensors.torch.load_file({path.name!r})"
    else:
        read = f"torch.load({path.name!r}, 'cpu', weights_only=True)" + "".join(f"[{key!r}]" for key in under)
    if prefix:
        read = f"{{n.removeprefix({prefix!r}): t for n, t in {read}.items() if n.startswith({prefix!r})}}"
    return f"save those that you mean alone, as by `torch.save({read}, 'alone.pth')`"


def _key(key: object) -> str:
    """A key of others in an error: a tuple may hold itself twice, at every level of it again."""
    return shown(key[:LONGEST_KEY]) if isinstance(key, str) else f"a {type(key).__name__}"


def _read(path: Path) -> Any:
    try:
        path = checked(path)  # what reads it opens it by name
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 30} GiB; save the network's state_dict alone")
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP)) == _ZIP
            if is_zip:
                refuse_compressed(file)
        # Mapped, so that an optimiser's state beside the weights is never read; older files cannot be.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    except OSError:
        raise
    except Exception as error:  # of a damaged file torch's reader may say anything
        raise ValueError(f"{path.name} {_refusal(error, path)}") from error


def _refusal(error: Exception, path: Path) -> str:
    """Why a file is not read. An UnpicklingError's own words advise to execute it."""
    what = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if what is not None and what[1].startswith("fastai."):
        return (
            f"is a Learner that fastai exported (it holds {shown(what[1])}), no weights alone, and is not opened: that "
            "could execute anything; where it is trusted, save the body of its network with fastai, "
            f"`torch.save(load_learner({path.name!r}).model[0].state_dict(), 'body.pth')`, `.model` where there is "
            "no head behind a body"
        )
    if what is not None:
        return (
            f"holds {what[1]} beside tensors, numbers and texts, and is not opened: that could execute anything; "
            "where the file is trusted, save its state_dict alone"
        )
    why = "" if isinstance(error, pickle.UnpicklingError) else shown(" ".join(str(error).split())[:200])
    said = f" ({why})" if why else ""
    return f"is damaged, or no file of torch.save or safetensors{said}; get it again from where it is published"


def _named(value: Any, path: Path) -> tuple[Keys, Mapping[Any, Any]]:
    file = path.name
    under: Keys = ()
    for _ in range(LEVELS):  # a mapping may hold itself
        if not isinstance(value, Mapping):
            raise ValueError(f"{file} holds a {type(value).__name__}, not tensors by name; save the state_dict alone")
        inside = [name for name in WRAPPERS if isinstance(value.get(name), Mapping)]
        if not inside:
            return under, value
        if len(inside) > 1:
            remedy = by_themselves(path, (*under, inside[0]))
            raise ValueError(f"{file} holds weights under {' and '.join(inside)}; {remedy}")
        under, value = (*under, inside[0]), value[inside[0]]
    raise ValueError(f"{file} holds weights below {LEVELS} wrappers or more; save the network's state_dict alone")


def _others(whole: Any, taken: Mapping[Any, Any]) -> dict[Keys, dict[str, Tensor]]:
    """Mappings of the file, other than `taken`, that hold a weight of a layer, which no state of an optimiser does; and
    lists of several such, with biases or norms between, as those that averages of parameters are kept in."""
    found: dict[Keys, dict[str, Tensor]] = {}
    waiting: deque[tuple[Keys, Any]] = deque([((), whole)])
    seen = set()
    while waiting:
        keys, value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        named = isinstance(value, Mapping)
        tensors: dict[str, Tensor] = {}
        for key, item in value.items() if named else enumerate(value):
            if isinstance(item, Tensor) and isinstance(key, str | int):
                tensors[str(key)] = item
            elif isinstance(item, Mapping | list | tuple) and isinstance(key, str | int) and len(keys) < LEVELS:
                waiting.append(((*keys, key), item))
        if value is not taken and _are_weights(tensors, named):
            found[keys] = tensors
    return found


def _are_weights(tensors: Mapping[str, Tensor], named: bool) -> bool:
    # Not floating-point are masks of pruning, of the same names.
    weights = [name for name, one in tensors.items() if one.ndim > 1 and one.is_floating_point()]
    if named:
        return any(name.endswith("weight") for name in weights)
    return len(weights) > 1 and any(one.ndim == 1 for one in tensors.values())

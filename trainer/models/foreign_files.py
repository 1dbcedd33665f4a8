"""Files of weights that others wrote: tensors by name, and nothing of the file is executed.

1. A file of safetensors, or of torch.save, read as tensors, numbers, texts and containers of them alone.
2. While the value has exactly one of the WRAPPERS, what is below it is taken.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainer.specs.given_files import checked, refuse_compressed
from trainer.specs.words import shown

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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file, without wrappers; on the CPU, perhaps mapped from the file.

    Raises:
        ValueError: the file is too large, damaged, holds anything but data, or no named tensors.
    """
    value = _named(_read(path), path.name)
    tensors = {str(name): item for name, item in value.items() if isinstance(item, Tensor)}
    if not tensors:
        some = ", ".join(_key(key) for key in islice(value, NAMED)) if value else "nothing"
        raise ValueError(f"{path.name} holds no named tensors but {some}; save the network's state_dict")
    return tensors


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
        raise ValueError(f"{path.name} {_refusal(error)}") from error


def _refusal(error: Exception) -> str:
    """Why a file is not read. An UnpicklingError's own words advise to execute it."""
    what = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if what is not None:
        return (
            f"holds {what[1]} beside tensors, numbers and texts, and is not opened: that could execute anything; "
            "where the file is trusted, save its state_dict alone"
        )
    why = "" if isinstance(error, pickle.UnpicklingError) else shown(" ".join(str(error).split())[:200])
    said = f" ({why})" if why else ""
    return f"is damaged, or no file of torch.save or safetensors{said}; get it again from where it is published"


def _named(value: Any, file: str) -> Mapping[Any, Any]:
    for _ in range(LEVELS):  # a mapping may hold itself
        if not isinstance(value, Mapping):
            raise ValueError(f"{file} holds a {type(value).__name__}, not tensors by name; save the state_dict alone")
        inside = [name for name in WRAPPERS if isinstance(value.get(name), Mapping)]
        if not inside:
            return value
        if len(inside) > 1:
            raise ValueError(f"{file} holds weights under {' and '.join(inside)}; save those that you mean alone")
        value = value[inside[0]]
    raise ValueError(f"{file} holds weights below {LEVELS} wrappers or more; save the network's state_dict alone")

"""The arrays of a correlation record, read without trust: a run directory is also written by its user's own code."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from barlow_lab.given_files import open_regular

MOST_BYTES = 1 << 22
"""Of one array: ours have 2 MB, but for a whole matrix of more than 1,024 features, beside which its blocks are."""
SPECTRA = ("spectrum", "spectrum_a", "spectrum_b")
_BLOCKS = "block_rms"
_WHOLE = "correlation"


def record_arrays(path: Path, *, within: Path) -> dict[str, Any]:
    """The spectra of a record as far as it has them, and as `matrix` the whole C, or as `blocks` the RMS of its blocks.

    Raises:
        OSError: it is not there, or leads out of `within`.
        ValueError: it is no archive of arrays, or one of these is none of numbers or larger than MOST_BYTES.
    """
    try:
        with open_regular(path, within=within) as file, zipfile.ZipFile(file) as archive:
            there = set(archive.namelist())
            wanted = {name: name for name in SPECTRA}
            wanted |= {"blocks": _BLOCKS} if f"{_BLOCKS}.npy" in there else {"matrix": _WHOLE}
            return {
                name: _array(archive, f"{stored}.npy", 1 if name in SPECTRA else 2)
                for name, stored in wanted.items()
                if f"{stored}.npy" in there
            }
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise ValueError(f"it cannot be read: {error}") from error


def _array(archive: zipfile.ZipFile, name: str, dimensions: int) -> Any:
    import numpy as np

    with archive.open(name) as member:
        raw = member.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"{name} is larger than {MOST_BYTES:,} bytes")
    stream = BytesIO(raw)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{name} is of another format")
    shape, _, kind = np.lib.format.read_array_header_1_0(stream)
    if kind.kind != "f" or len(shape) != dimensions or len(set(shape)) != 1 or 0 in shape:
        raise ValueError(f"{name} is no array of {dimensions} equal dimensions of numbers")
    values = np.frombuffer(raw, kind, offset=stream.tell())
    return values.reshape(shape).astype(np.float32)

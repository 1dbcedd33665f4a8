"""The arrays of a correlation record, read without trust: a run directory is also written by its user's own code."""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from barlow_lab.given_files import open_regular

MOST_BYTES = 1 << 22
"""Of one array: ours have 2 MB, but for a whole matrix of more than 1,024 features, beside which its blocks are."""
MOST_FILE_BYTES = 1 << 30
"""Of a record: the whole matrix of 16,384 features has half of it."""
MOST_LIST_BYTES = 1 << 16
"""Of the list of an archive's parts, all of which is read before the first one: ours has less than 1 kB."""
SPECTRA = ("spectrum", "spectrum_a", "spectrum_b")
_END_BYTES, _LOCATOR_BYTES = 22, 20
_BLOCKS = "block_rms"
_WHOLE = "correlation"


def record_arrays(path: Path, *, within: Path) -> dict[str, Any]:
    """The spectra of a record as far as it has them, and as `matrix` the whole C, or as `blocks` the RMS of its blocks.

    Raises:
        OSError: it is not there, or leads out of `within`.
        ValueError: it is no archive of arrays, larger than MOST_FILE_BYTES, or one of these is none of numbers or
            larger than MOST_BYTES.
    """
    try:
        with open_regular(path, within=within) as file:
            _refuse_other_archives(file)
            with zipfile.ZipFile(file) as archive:
                there = set(archive.namelist())
                wanted = {name: name for name in SPECTRA}
                wanted |= {"blocks": _BLOCKS} if f"{_BLOCKS}.npy" in there else {"matrix": _WHOLE}
                return {
                    name: _array(archive, f"{stored}.npy", 1 if name in SPECTRA else 2)
                    for name, stored in wanted.items()
                    if f"{stored}.npy" in there
                }
    except (OSError, ValueError):
        raise
    except Exception as error:  # of a damaged or a made up file: zlib's, tokenize's, numpy's, by no common name
        raise ValueError(f"it cannot be read: {type(error).__name__}: {error}") from error


def _refuse_other_archives(file: BinaryIO) -> None:
    """By the end of an archive, which is where numpy puts it: without a comment, and not in the form for large ones."""
    size = file.seek(0, os.SEEK_END)
    if size > MOST_FILE_BYTES:
        raise ValueError(f"it is larger than {MOST_FILE_BYTES:,} bytes")
    file.seek(max(0, size - _END_BYTES - _LOCATOR_BYTES))
    tail = file.read()
    end = tail[-_END_BYTES:]
    ours = len(end) == _END_BYTES and end.startswith(b"PK\5\6") and end.endswith(b"\0\0")
    if not ours or tail.startswith(b"PK\6\7"):
        raise ValueError("it cannot be read: it is no archive as numpy writes them")
    if int.from_bytes(end[12:16], "little") > MOST_LIST_BYTES:
        raise ValueError(f"the list of its parts is larger than {MOST_LIST_BYTES:,} bytes")


def _array(archive: zipfile.ZipFile, name: str, dimensions: int) -> Any:
    import numpy as np

    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in another way than numpy's")
    with archive.open(name) as member:
        raw = member.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"{name} is larger than {MOST_BYTES:,} bytes")
    stream = BytesIO(raw)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{name} is of another format")
    shape, by_columns, kind = np.lib.format.read_array_header_1_0(stream)
    sides = [side for side in shape if type(side) is int and side >= 1]  # a bool is an int, too
    if kind.kind != "f" or not len(sides) == len(shape) == dimensions or len(set(sides)) != 1:
        raise ValueError(f"{name} is no array of {dimensions} equal dimensions of numbers")
    values = np.frombuffer(raw, kind, offset=stream.tell())
    return values.reshape(shape, order="F" if by_columns else "C").astype(np.float32)

"""Standard output and error of every command here: a character that the terminal lacks is shown, never a failure."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper


def print_escapes() -> None:
    r"""Print what the encoding lacks as \xe4 or \u043f. How each command begins.

    Whoever closed one of the three streams (`>&-`) gets it back as /dev/null: else the next file or connection that is
    opened has its number, and takes what a library writes there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

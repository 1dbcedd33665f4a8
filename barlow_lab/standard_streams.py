"""The streams of every program here: neither a character that the terminal lacks nor a closed one is a failure."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def ready_streams() -> None:
    r"""Print what the encoding lacks as \xe4 or \u043f, and have all three streams. How each program begins.

    Whoever closed one of them (`2>&-`) gets it back as /dev/null, for this process and what it starts: else the next
    file or connection that is opened has its number, and takes what a library writes there.
    """
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            null = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - gets the lowest number that is free
            os.set_inheritable(null.fileno(), True)
            setattr(sys, name, null)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

"""The logs of the service's processes: one line a message, whatever texts of users are in it."""

from __future__ import annotations

import logging
import sys

from barlow_lab.foreign_text import shown, shown_lines


class OneLine(logging.Formatter):
    """A formatter whose messages are one line each, with escapes for what would break it; a traceback has its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without its traceback."""
        return shown(super().formatMessage(record), keep="\t")

    def formatException(self, ei: logging._SysExcInfoType) -> str:
        """The traceback, line by line."""
        return shown_lines(super().formatException(ei))


def to_stderr(format: str, *, level: int = logging.INFO) -> None:
    """Have this process write its log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(format))
    logging.basicConfig(level=level, handlers=[handler])

"""What a worker tells its ranks by the environment, each variable by its one name."""

from __future__ import annotations

PARENT_PID = "BARLOW_PARENT_PID"
"""The process id of the parent, with which a process ends (`barlow_lab.kernel`)."""
HIDE = "BARLOW_HIDE"
"""A rank lets no other process of its account read its memory."""
ATTEMPT_TOKEN = "BARLOW_ATTEMPT_TOKEN"
"""The fencing token of the attempt, which stands in its outcome.json."""
ALIVE_FILE = "BARLOW_ALIVE_FILE"
"""The file whose time says that the worker still holds the attempt's lease,"""
ALIVE_SECONDS = "BARLOW_ALIVE_SECONDS"
"""and how old it may be."""
RENDEZVOUS_FILE = "BARLOW_RENDEZVOUS_FILE"
"""The file at which the ranks of one host meet; a file cannot be taken by a stranger as a port can."""
CACHE_DIR = "BARLOW_CACHE_DIR"
"""The folder in which libraries keep what they compile."""

"""How much of MLflow one visitor takes: so many requests at once, and the others of theirs wait for one of these."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 8
"""Requests of one visitor; a browser sends six. MLflow works at 40."""


class VisitorLimits:
    """The turns of all visitors that are here now, by name."""

    def __init__(self) -> None:
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._there: dict[str, int] = {}

    @asynccontextmanager
    async def take(self, name: str) -> AsyncIterator[None]:
        """One of a visitor's turns, given back at the end."""
        turns = self._turns.setdefault(name, asyncio.Semaphore(AT_ONCE))
        self._there[name] = self._there.get(name, 0) + 1
        try:
            async with turns:
                yield
        finally:
            self._there[name] -= 1
            if not self._there[name]:
                del self._there[name], self._turns[name]

"""Sends the wake-ups of placed attempts. A broker that hangs holds up this thread, never the tick."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence

RESEND_SECONDS = 5.0
"""An attempt that is not accepted for so long is announced again: its message may be lost."""

logger = logging.getLogger("service.scheduling")

Send = Callable[[str, uuid.UUID], None]
"""Sends one wake-up to a node for an attempt; may raise."""


class Waker:
    """A thread that sends the newest set of wake-ups it was offered. Failures are logged, never raised."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._offered: Sequence[tuple[str, uuid.UUID]] = ()
        self._changed = threading.Event()
        self._sent_at: dict[uuid.UUID, float] = {}
        self._failing = False
        threading.Thread(target=self._run, name="waker", daemon=True).start()

    def offer(self, placed: Sequence[tuple[str, uuid.UUID]]) -> None:
        """Take over all attempts that wait to be accepted, as (node, attempt)."""
        self._offered = placed
        self._changed.set()

    def _run(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            offered = self._offered
            self._sent_at = {attempt_id: self._sent_at.get(attempt_id, 0.0) for _, attempt_id in offered}
            for node, attempt_id in offered:
                if time.monotonic() - self._sent_at[attempt_id] >= RESEND_SECONDS or not self._sent_at[attempt_id]:
                    self._sent_at[attempt_id] = time.monotonic()
                    self._send_one(node, attempt_id)

    def _send_one(self, node: str, attempt_id: uuid.UUID) -> None:
        try:
            self._send(node, attempt_id)
        except Exception as error:
            if not self._failing:
                logger.warning("wake-ups do not get through (%s); nodes find their jobs by polling", error)
            self._failing = True
        else:
            if self._failing:
                logger.info("wake-ups get through again")
            self._failing = False

"""Checkpoints beside the training: the loop only copies its state, a thread writes the copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread, while the loop in its `with` block goes on.

    The end of the block waits for the checkpoint under way, also where it is an error: what was begun will count. A
    KeyboardInterrupt does not wait: who asks for the end a second time wants it now.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copy: dict[str, Any] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, state: dict[str, Any], write: Callable[[dict[str, Any]], object]) -> None:
        """Copy `state` and call `write` with the copy in a thread.

        The checkpoint before is waited for first, so there is one copy at most; the next one goes into its memory,
        as fresh pages would take most of the time. On a GPU the host waits for nothing else: the copy goes to pinned
        memory in the order of the stream, before what later steps do to the state, and the thread waits for it.

        Raises:
            OSError: the checkpoint before could not be written.
        """
        self.wait()
        self._copy = copy = _copied(state, self._copy)
        filled: torch.cuda.Event | None = None
        if self._device.type == "cuda":
            filled = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            filled.record()
        self._thread = threading.Thread(target=self._run, args=(write, copy, filled), daemon=True, name="checkpoint")
        self._thread.start()

    def look(self) -> None:
        """Wait for nothing, but raise what the thread has failed with, once."""
        error = self._error
        if error is not None:
            self._error = None
            raise error

    def wait(self) -> None:
        """Wait for the checkpoint under way, and raise what its thread has failed with."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.look()

    def _run(
        self, write: Callable[[dict[str, Any]], object], copy: dict[str, Any], filled: torch.cuda.Event | None
    ) -> None:
        try:
            if filled is not None:
                torch.cuda.set_device(self._device)  # a new thread would begin to use the first GPU
                filled.synchronize()
            write(copy)
        except BaseException as error:
            self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        elif isinstance(error, Exception):
            try:
                self.wait()
            except Exception as another:
                error.add_note(f"The checkpoint under way failed too: {another}")


def _copied(value: Any, former: Any) -> Any:
    """Tensors as copies in the memory of the host, that of `former` where it fits; containers rebuilt.

    A GPU may still be filling them.
    """
    if isinstance(value, Tensor):
        if not (isinstance(former, Tensor) and former.shape == value.shape and former.dtype == value.dtype):
            former = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda, requires_grad=False)
        return former.copy_(value.detach(), non_blocking=True)
    if isinstance(value, Mapping):
        known = former if isinstance(former, dict) else {}
        return {key: _copied(one, known.get(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        before = former if isinstance(former, list | tuple) else ()
        return type(value)(map(_copied, value, chain(before, repeat(None))))
    return value

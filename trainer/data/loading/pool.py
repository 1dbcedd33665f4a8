"""Work done ahead of its consumer by the threads of one rank."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch

from trainer.data.decoding.decoder import LONGEST_SECONDS, overdue
from trainer.data.errors import DataError

T = TypeVar("T")

BATCHES_AHEAD = 3
LOOK_SECONDS = 5.0

Piece = Callable[[threading.Event], None]
"""A part of a task. It ends early, between two images, once the event is set."""


class Task(Generic[T]):
    """A result that is filled in by several pieces of work."""

    def __init__(self, result: T, pieces: list[Piece]) -> None:
        self.result = result
        self.pieces = pieces


def ahead(tasks: Iterable[Task[T]], threads: int) -> Generator[T]:
    """The results of `tasks` in order, while the pieces of the next BATCHES_AHEAD tasks are already at work.

    An exception of a piece is raised at its task's turn. However the consumer leaves - to the end, by an exception or
    by closing the iterator - waiting pieces are dropped, those at work end with their image, and no thread is left
    running, but for one whose decoder does not end.
    """
    source = iter(tasks)
    closing = threading.Event()
    waiting: deque[tuple[T, list[Future[None]]]] = deque()
    # The threads are the parallelism: a team of OpenMP threads in each of them would fight the step for the cores.
    one_each = partial(torch.set_num_threads, 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loading", initializer=one_each)
    try:
        while True:
            while len(waiting) <= BATCHES_AHEAD and (task := next(source, None)) is not None:
                waiting.append((task.result, [pool.submit(piece, closing) for piece in task.pieces]))
            if not waiting:
                return
            result, pieces = waiting.popleft()
            for piece in pieces:
                _finished(piece)
            yield result
    finally:
        closing.set()
        # A thread whose decoder does not end is left behind: the process ends with what is raised here.
        pool.shutdown(wait=overdue() is None, cancel_futures=True)


def _finished(piece: Future[None]) -> None:
    """Wait for a piece; raises what it raised.

    Raises:
        DataError: an image is being decoded without end.
    """
    while True:
        try:
            return piece.result(LOOK_SECONDS)
        except TimeoutError:
            if piece.done():  # it is the piece's own
                return piece.result()
            if (name := overdue()) is not None:
                raise DataError(
                    f"{name} has taken more than {LONGEST_SECONDS:g} s of a processor, and its decoding does not end: "
                    "take the image out of the data set, or write it anew"
                ) from None


def pieces(
    load: Callable[[int], None],
    indices: np.ndarray,
    threads: int,
    tick: Callable[[], None],
    end: Callable[[slice], None] = lambda rows: None,
) -> list[Piece]:
    """The rows of a batch in one contiguous piece per thread: fewer hand-overs than one piece per image.

    `load` is called with a row, 0..n-1, and `tick` after it, then `end` with all rows of the piece; what `load` raises
    becomes a DataError that names the row's image, but for what is wrong with the host: its disk (OSError), its memory,
    or torch (RuntimeError).
    """

    def piece(rows: np.ndarray, closing: threading.Event) -> None:
        for row in rows.tolist():
            if closing.is_set():
                return
            try:
                load(row)
                tick()
            except Exception as error:
                if _is_the_hosts(error):
                    raise
                raise DataError(f"image {indices[row]} cannot be loaded: {error}") from error
        end(slice(int(rows[0]), int(rows[-1]) + 1))

    shares = np.array_split(np.arange(len(indices)), min(threads, len(indices)))
    return [partial(piece, rows) for rows in shares]


def _is_the_hosts(error: Exception) -> bool:
    """Whether it is the host's fault, not that of the data; Pillow's own OSErrors have no number."""
    return isinstance(error, MemoryError | RuntimeError) or (isinstance(error, OSError) and error.errno is not None)

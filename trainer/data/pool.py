"""Work done ahead of its consumer by the threads of one rank."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

BATCHES_AHEAD = 3


class Job(Generic[T]):
    """A result that is filled in by several pieces of work."""

    def __init__(self, result: T, pieces: list[Callable[[], None]]) -> None:
        self.result = result
        self.pieces = pieces


def ahead(jobs: Iterable[Job[T]], threads: int) -> Generator[T]:
    """The results of `jobs` in order, while the pieces of the next BATCHES_AHEAD jobs are already at work.

    An exception of a piece is raised at its job's turn. However the consumer leaves - to the end, by an exception or
    by closing the iterator - waiting pieces are dropped and no thread is left running.
    """
    source = iter(jobs)
    waiting: deque[tuple[T, list[Future[None]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loading")
    try:
        while True:
            while len(waiting) <= BATCHES_AHEAD and (job := next(source, None)) is not None:
                waiting.append((job.result, [pool.submit(piece) for piece in job.pieces]))
            if not waiting:
                return
            result, pieces = waiting.popleft()
            for piece in pieces:
                piece.result()
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

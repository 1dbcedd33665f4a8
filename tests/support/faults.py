"""The faults of the fault suite, on real processes, files and servers. Each leaves the stack able to mend itself."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import redis
from fault_stack import FaultStack
from running_stack import wait_until

from service.broker import make_celery, queue_of, send_wake
from service.local.stack import NODE
from service.settings import Settings

RETURN_SECONDS = 90.0
"""`barlow up` waits up to 30 s before it starts a part again that died often."""


def kill(processes: Sequence[psutil.Process]) -> int:
    """SIGKILL; returns how many were there to hear it."""
    return send(processes, signal.SIGKILL)


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> int:
    """A signal to each process that is still there; returns how many were."""
    heard = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            heard += 1
    return heard


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended, buried or not."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def frozen(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end, for those that are still there."""
    assert processes, "nothing to freeze: that would prove nothing"
    send(processes, signal.SIGSTOP)
    try:
        yield
    finally:
        send(processes, signal.SIGCONT)


@contextlib.contextmanager
def frozen_at(processes: Sequence[psutil.Process], reached: Callable[[], bool]) -> Iterator[None]:
    """`frozen` as soon as `reached`: until then they run in short pieces, so that no busy machine lets them run past it
    while nobody looks."""
    while True:
        with frozen(processes):
            if reached():
                yield
                return
        time.sleep(0.05)


def whole(process: psutil.Process) -> list[psutil.Process]:
    """A process and everything it started: a server freezes only with all of its processes."""
    return [process, *process.children(recursive=True)]


def there(stack: FaultStack, name: str) -> psutil.Process:
    """A part of the stack; after an earlier fault `barlow up` may just be about to start it again."""
    found: list[psutil.Process] = []

    def look() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(stack.part(name))
        return bool(found)

    wait_until(look, RETURN_SECONDS)
    return found[0]


def kill_part(stack: FaultStack, name: str, number: signal.Signals = signal.SIGKILL) -> None:
    """End a part of the stack and wait until `barlow up` has another one running."""
    dead = there(stack, name)
    dead.send_signal(number)
    await_other(stack, name, dead)


def await_other(stack: FaultStack, name: str, dead: psutil.Process) -> None:
    """Wait until a part runs that is not this process."""

    def another() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return stack.part(name) != dead
        return False

    wait_until(another, RETURN_SECONDS)


@contextlib.contextmanager
def away(stack: FaultStack, name: str, number: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """A part of the stack is ended and stays away: `barlow up`, which would start it again, is frozen meanwhile."""
    dead = there(stack, name)
    with frozen([psutil.Process(stack.process.pid)]):
        dead.send_signal(number)
        wait_until(lambda: gone(dead), RETURN_SECONDS)
        yield
    await_other(stack, name, dead)


def freeze_part(stack: FaultStack, name: str, seconds: float) -> None:
    """SIGSTOP a part with all of its processes, and SIGCONT after `seconds`."""
    with frozen(whole(there(stack, name))):
        time.sleep(seconds)


def fill_disk(rank: psutil.Process, at: int = 200_000) -> None:
    """From now on no file of this process may grow beyond `at` bytes: the journal fits, a checkpoint does not."""
    rank.rlimit(psutil.RLIMIT_FSIZE, (at, at))


def newest_checkpoint(stack: FaultStack, job_id: uuid.UUID) -> Path:
    """The checkpoint that a resume would take."""
    return max(stack.run(job_id).glob("attempts/*/checkpoints/step-*"), key=lambda folder: folder.name)


def truncate(checkpoint: Path) -> None:
    """Half of the state is gone."""
    state = checkpoint / "state.pt"
    os.truncate(state, state.stat().st_size // 2)


def flip_a_byte(checkpoint: Path) -> None:
    """One byte in the middle of the state is another one."""
    state = checkpoint / "state.pt"
    with state.open("r+b") as file:
        file.seek(state.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))


def broker(stack: FaultStack) -> Settings:
    """Settings that find the broker of this stack, from the scheduler's environment."""
    own = stack.part("scheduler").environ()
    return Settings(database_url=own["BARLOW_DATABASE_URL"], redis_url=own["BARLOW_REDIS_URL"])


def redis_of(stack: FaultStack) -> redis.Redis:
    """A client of the stack's Redis."""
    return redis.Redis.from_url(broker(stack).redis_url.get_secret_value(), socket_timeout=20)


def flush_redis(stack: FaultStack) -> None:
    """Redis forgets everything: queues, bindings, messages."""
    with redis_of(stack) as client:
        client.flushall()


def empty_redis(stack: FaultStack) -> None:
    """Redis is killed and comes back without its file."""
    folder = stack.directory / "redis"
    with away(stack, "redis", signal.SIGKILL):
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file() and file.name != "redis.conf":
                file.unlink()


def send_message(stack: FaultStack, attempt_id: uuid.UUID, node: str = NODE, times: int = 1) -> None:
    """A wake-up as the scheduler sends it: once more, for an attempt that is not, or to a node that is not."""
    app = make_celery(broker(stack))
    for _ in range(times):
        send_wake(app, node, attempt_id)
    app.close()


@contextlib.contextmanager
def stolen_messages(stack: FaultStack, node: str = NODE) -> Iterator[list[bytes]]:
    """Every wake-up to the node is taken from its queue by somebody else; those taken so far."""
    taken: list[bytes] = []
    ended = threading.Event()

    def steal() -> None:
        with redis_of(stack) as client:
            while not ended.is_set():
                if (message := client.blpop([queue_of(node)], timeout=5)) is not None:
                    taken.append(message[1])

    thieves = [threading.Thread(target=steal, daemon=True) for _ in range(2)]
    for thief in thieves:
        thief.start()
    time.sleep(2)  # the worker asks anew every second; now the thieves have asked before it
    try:
        yield taken
    finally:
        ended.set()
        for thief in thieves:
            thief.join()

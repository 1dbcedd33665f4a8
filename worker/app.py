"""The Celery worker of a GPU host: its one task wakes the supervisor, which lives in the same process."""

from __future__ import annotations

import logging
import signal
import time
from types import FrameType

from celery import Celery, signals
from celery.platforms import EX_OK
from celery.worker import state

from service.broker import WAKE_TASK, make_celery, queue_of
from service.database.engine import make_engine
from service.ledger.errors import NodeNameTaken
from service.settings import Settings
from worker import messages
from worker.supervisor import Supervisor

RESTART_SECONDS = 5.0

log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Work until TERM, INT or HUP, then drain; returns the exit status.

    Celery asks for its broker for ever; should it end by a fault all the same, it is started again. The supervisor
    does not notice: it finds what is placed on this node by asking the database.
    """
    engine = make_engine(settings)
    try:
        node = Supervisor(settings, engine)
        node.register()
    except (ValueError, NodeNameTaken) as error:
        log.error("%s", error)
        return 2

    def hear(number: int, frame: FrameType | None) -> None:
        state.should_stop = EX_OK
        node.begin_drain()

    def heard_by_celery(**_: object) -> None:
        node.begin_drain()

    # From here on a signal means a drain, also before Celery has handlers of its own. It begins at once: Celery may
    # need half a minute to take leave of a Redis that does not answer.
    signal.signal(signal.SIGTERM, hear)
    signal.signal(signal.SIGINT, hear)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # so that nohup leaves it
        signal.signal(signal.SIGHUP, hear)
    signals.worker_shutting_down.connect(heard_by_celery)
    node.start()
    app = _make_app(settings, node)
    while not _told_to_go():
        _consume(app, node.name)
        if not _told_to_go():
            log.error("Celery ended by itself; it starts again in %g s", RESTART_SECONDS)
            state.reset_state()  # it counts the message that ended it as one at work, and would take no other
            messages.throw_away_what_is_no_queue(app, queue_of(node.name))
            time.sleep(RESTART_SECONDS)
    log.info("Celery has taken leave")
    # One signal says it all: the drain has its own end. QUIT still ends the process at once.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    node.drain()
    engine.dispose()
    return 1 if node.replaced else 0


def _make_app(settings: Settings, node: Supervisor) -> Celery:
    messages.sieve()
    app = make_celery(settings)
    app.conf.worker_redirect_stdouts = False
    signals.setup_logging.connect(_keep_logging, weak=False)

    def wake(attempt_id: str) -> None:
        node.wake()

    app.task(name=WAKE_TASK)(wake)
    return app


def _consume(app: Celery, node: str) -> None:
    """Read the node's queue until a signal. Solo: a task takes no time, and a fork would copy the supervisor."""

    class Consumer(app.Worker):  # type: ignore[misc]
        def install_platform_tweaks(self, worker: object) -> None:
            hangup = signal.getsignal(signal.SIGHUP)
            super().install_platform_tweaks(worker)
            signal.signal(signal.SIGHUP, hangup)  # Celery would have it start a copy of this process

    Consumer(
        hostname=f"barlow@{node}",
        pool="solo",
        concurrency=1,
        queues=[queue_of(node)],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    ).start()


def _told_to_go() -> bool:
    """Whether a signal handler heard TERM, INT, HUP or QUIT."""
    return any(said is not None and said is not False for said in (state.should_stop, state.should_terminate))


def _keep_logging(**_: object) -> None:
    """Connected to Celery's signal, so that it leaves the logging of this process as it is."""

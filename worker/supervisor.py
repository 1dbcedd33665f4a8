"""This host in the service: registered with its slots, seen, and at work on what is placed on it."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import uuid

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import marks
from service.completion import Completion
from service.database.engine import session_factory
from service.database.migrate import require_head
from service.database.tables import Node, Slot
from service.ledger import attempts, nodes
from service.ledger.errors import NodeNameTaken
from service.settings import Settings
from worker import clock, devices, versions
from worker.attempt import AttemptRun
from worker.backbone_report import BackboneReport
from worker.data_sets import Survey
from worker.environment import passed_on
from worker.log_text import first_line
from worker.process import devices_in_use, end_orphans, is_gone
from worker.recorder.loops import Recorder
from worker.reports import Reports, as_row
from worker.retention import Janitor

RETRY_SECONDS = 2.0
STOP_LOOK_SECONDS = 1.0
"""Between two looks at what the users of the running jobs ask for: one small read for the whole host."""
DRAIN_LOOK_SECONDS = 0.2
DRAIN_SPARE_SECONDS = 15.0
"""Time for the end of an attempt after its ranks are gone."""

log = logging.getLogger(__name__)


class Supervisor:
    """The supervisor of this host.

    It asks the database for placed attempts every `poll_seconds`, and at once when it is woken: a lost message costs
    seconds, a doubled one nothing. It needs no broker.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        """Raises ValueError: the node has no name, its datasets.yaml has faults, or its ranks could not be marked."""
        if settings.node_name is None:
            raise ValueError("this host has no name: set BARLOW_NODE_NAME to one that no other worker uses")
        if not marks.can_mark(marks.ATTEMPT):
            raise ValueError(
                "the limit of file locks is set for this process, and the worker marks its ranks in its place: start "
                "it with `ulimit -x unlimited`, LimitLOCKS=infinity in a systemd unit"
            )
        self.name = settings.node_name
        self.replaced = False
        self._settings = settings
        self._engine = engine
        self._sessions = session_factory(engine)
        self._instance = uuid.uuid4()
        self._recorder = Recorder(settings, engine)
        self._janitor = Janitor(settings, engine)
        reports = Reports(self._sessions, self.name, self._instance, leaving=lambda: self._draining)
        self._survey = Survey(settings, reports.data_sets)
        self._backbones = BackboneReport(settings.backbones_dir, reports.backbones)
        self._completion = Completion(settings.runs_dir, backoff_seconds=settings.retry_backoff_seconds)
        self._devices: list[devices.Device] = []
        self._runs: dict[uuid.UUID, tuple[AttemptRun, threading.Thread]] = {}
        # put() takes no lock: it is the one way to wake a thread that a signal handler may use.
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._draining = False
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def register(self) -> None:
        """End what a dead worker left here and take the node's name. Waits for a database that is away.

        A name that a worker held until just now may be that of a dead one: it is tried for as long as a lease.

        Raises:
            NodeNameTaken: another worker of this name is alive.
            SchemaMismatch: the run database is of another version.
        """
        if orphans := end_orphans(self.name):
            log.warning("ended processes that a dead worker left: %s", orphans)
        # Only now: the memory of an orphan must not pass for the idle state of its GPU.
        self._devices = devices.discover(self.name, self._settings.slots, passed_on(self._settings))
        patience = clock.now() + self._settings.lease_seconds + RETRY_SECONDS
        pause = threading.Event()
        while True:
            try:
                require_head(self._engine)
                self._take_name()
                break
            except NodeNameTaken as error:
                if clock.now() > patience:
                    raise
                log.info("%s; waiting to see whether it is alive", error)
            except SQLAlchemyError as error:
                log.warning("cannot register yet: %s", first_line(error))
            pause.wait(RETRY_SECONDS)

    def start(self) -> None:
        """Begin to work; the node is registered."""
        log.info("node %s: %s", self.name, ", ".join(f"{d.kind} {d.uuid}" for d in self._devices))
        self._recorder.start()
        self._janitor.start()
        self._survey.start()
        self._backbones.start()
        self._thread.start()

    def wake(self) -> None:
        """Look for placed attempts now."""
        self._woken.put(None)

    def begin_drain(self) -> None:
        """Accept nothing more and have every trainer write a checkpoint and leave. A signal handler may call it."""
        self._draining = True
        self._woken.put(None)

    def drain(self) -> None:
        """Drain, end the attempts, and go."""
        self.begin_drain()
        self._thread.join()
        self._survey.stop()
        self._backbones.stop()
        self._janitor.stop()
        self._recorder.stop()
        try:
            with self._sessions.begin() as session:
                nodes.leave(session, self.name, self._instance, self._completion)
        except SQLAlchemyError as error:
            log.warning("could not take leave of the database: %s", first_line(error))

    def _take_name(self) -> None:
        with self._sessions.begin() as session:
            former = self._held(session)
            self._devices = devices.measure(self._devices, devices_in_use(self.name, former))
            report = [
                nodes.SlotReport(d.index, d.kind, d.uuid, d.memory_bytes, empty=_is_empty(d, former[d.uuid]))
                for d in self._devices
            ]
            self._survey.remember(session.scalar(select(Node.data_sets).where(Node.name == self.name)) or {})
            nodes.register(
                session,
                name=self.name,
                instance=self._instance,
                versions=versions.installed(),
                data_sets=as_row(self._survey.entries),
                cores=devices.cores(),
                memory_bytes=devices.memory_bytes(),
                slots=report,
                lease_seconds=self._settings.lease_seconds,
                complete=self._completion,
            )

    def _supervise(self) -> None:
        beat = poll = look = clock.now()
        drained_by: float | None = None
        while True:
            due = min(beat, poll, look) if self._runs else min(beat, poll)
            woken = self._wait(max(0.0, due - clock.now()) if drained_by is None else DRAIN_LOOK_SECONDS)
            now = clock.now()
            if self._draining and drained_by is None:
                log.info("draining: trainers write a checkpoint and leave")
                drained_by = now + 2 * self._settings.stop_grace_seconds + DRAIN_SPARE_SECONDS
                beat = now  # nothing more is to be placed here, and what was placed goes elsewhere
            here = drained_by is None or self._drain_runs(late=now > drained_by)
            try:
                if now >= beat:
                    beat = now + self._settings.heartbeat_seconds
                    self._beat()
                if drained_by is None and (woken or now >= poll):
                    poll = now + self._settings.poll_seconds
                    self._accept_placed()
                if now >= look:
                    look = now + STOP_LOOK_SECONDS
                    self._pass_on_stops()
            except SQLAlchemyError as error:
                look = now + self._settings.heartbeat_seconds
                log.warning("the database does not answer: %s", first_line(error))
            except Exception:
                log.exception("the supervisor goes on after a fault")
            if not here:
                return

    def _wait(self, seconds: float) -> bool:
        """Wait until somebody wakes us, at most so long; say whether somebody did. Several calls at once are one."""
        woken = False
        with contextlib.suppress(queue.Empty):
            self._woken.get(timeout=seconds)
            woken = True
            while True:
                self._woken.get_nowait()
        return woken

    def _drain_runs(self, *, late: bool) -> bool:
        """Have every attempt leave; returns whether one is still here.

        `late`: the ranks are gone by now, but the database is away: what it is to be told must wait for the lease.
        """
        for run, _ in self._runs.values():
            run.drain()
            if late:
                run.abandon()
        return any(thread.is_alive() for _, thread in self._runs.values())

    def _beat(self) -> None:
        if self.replaced:
            return
        with self._sessions.begin() as session:
            if not nodes.seen(session, self.name, self._instance):
                self._replaced()
                return
            waiting = nodes.quarantined(session, self.name)
            held = self._held(session)
            if self._draining:
                nodes.begin_drain(session, self.name, self._instance)
        if not waiting:
            return
        self._devices = devices.measure(self._devices, devices_in_use(self.name, held))
        ours = {device.index: device for device in self._devices}
        empty = [slot.index for slot in waiting if slot.index in ours and _is_empty(ours[slot.index], slot.attempt_id)]
        if empty:
            with self._sessions.begin() as session:
                nodes.release_quarantined(session, self.name, empty)

    def _held(self, session: Session) -> dict[str, uuid.UUID | None]:
        """UUID of each device here → the attempt that was given it last."""
        uuids = [device.uuid for device in self._devices]
        rows = session.execute(select(Slot.device_uuid, Slot.attempt_id).where(Slot.device_uuid.in_(uuids)))
        return dict.fromkeys(uuids, None) | {row.device_uuid: row.attempt_id for row in rows}

    def _replaced(self) -> None:
        """Another worker has our name, so our attempts are lost already: their leases will say so. We go."""
        log.error("another worker took the node name %s; this one ends", self.name)
        self.replaced = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _pass_on_stops(self) -> None:
        """A renewal would say it too, but only with the next heartbeat."""
        self._runs = {key: (run, thread) for key, (run, thread) in self._runs.items() if thread.is_alive()}
        if self._runs:
            with self._sessions() as session:
                asked = attempts.stop_requested(session, self._runs.keys())
            for attempt_id in asked:
                self._runs[attempt_id][0].stop_requested()

    def _accept_placed(self) -> None:
        with self._sessions() as session:
            placed = attempts.placed_on(session, self.name)
        for attempt_id in placed:
            if not self._draining:
                self._accept(attempt_id)

    def _accept(self, attempt_id: uuid.UUID) -> None:
        sent, lease_seconds = clock.now(), self._settings.lease_seconds
        with self._sessions.begin() as session:
            attempt = attempts.accept(
                session, attempt_id, node=self.name, instance=self._instance, lease_seconds=lease_seconds
            )
            if attempt is None:
                return
            self._recorder.open(session, attempt.job_id)
        self._janitor.expect(attempt.job_id)
        run = AttemptRun(
            attempt,
            sessions=self._sessions,
            settings=self._settings,
            recorder=self._recorder,
            threads_per_rank=max(1, devices.cores() // len(self._devices)),
            sent=sent,
        )
        thread = threading.Thread(target=run.run, name=f"attempt-{attempt_id}", daemon=True)
        self._runs[attempt_id] = (run, thread)
        thread.start()


def _is_empty(device: devices.Device, attempt_id: uuid.UUID | None) -> bool:
    """Whether nothing of the attempt that held the device is left on this host."""
    return devices.is_empty(device) and (attempt_id is None or is_gone(attempt_id))

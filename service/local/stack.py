"""`barlow up`: the whole service on one machine. Starts it, keeps it alive, stops it in the right order."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import httpx
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from service import outgoing_http
from service.completion import Completion
from service.database import migrate
from service.database.engine import make_engine, session_factory
from service.database.provisioning import provision
from service.database.tables import NOBODY, Node
from service.ledger import nodes
from service.local import access
from service.local.folder import STATE, lock, make_private, read_state, write_private
from service.local.host_files import host_files
from service.local.ports import HOST, Kept, keep, port_or_free
from service.local.process import Child, belong_to, end_leftovers, log_tail
from service.local.servers import Mlflow, Postgres, Redis
from service.loopback import others_at
from service.settings import Settings

ENDPOINTS = "endpoints.json"
NODE = "local"

_FIRST = {"api": 8000, "mlflow": 5000}
"""Ports of what is sent tokens, at the first start of a stack for which no others are named."""
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0
_SAID = 500
"""Characters of the last line of a log."""


@dataclass
class _Part:
    """One child of the stack and how often it had to be started again lately."""

    name: str
    child: Child
    start: Callable[[], None]
    started_at: float
    pause: float = 0.0
    start_again_at: float | None = None


class Stack:
    """PostgreSQL, Redis, MLflow, API, scheduler and one worker as children of this process.

    Everything lies in `directory`, which is closed to others: postgres/, redis/, mlflow/ (artifacts), runs/ (run
    directories), data/ (data sets), logs/, local.json (passwords and ports, mode 600), admin-token (mode 600, unless
    BARLOW_ADMIN_TOKEN is set or the stack is not `guarded`) and, while the stack answers, endpoints.json (mode 600: the
    database's address holds its password, so that the one line is enough to query it).
    """

    def __init__(
        self,
        directory: Path,
        *,
        api_port: int | None = None,
        mlflow_port: int | None = None,
        slots: int | None = None,
        guarded: bool = True,
        data_sets: Path | None = None,
        backbones: Path | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        self.directory = directory.resolve()
        self._wanted = {"api": api_port, "mlflow": mlflow_port, "postgres": None, "redis": None}
        self._slots = slots
        self._guarded = guarded
        self._given = data_sets, backbones
        self._report = report
        self._lock: TextIO | None = None
        self._kept: dict[str, Kept] = {}
        self._parts: list[_Part] = []

    def start(self) -> dict[str, str]:
        """Start everything and wait until a job would run.

        Returns:
            The addresses of endpoints.json: `api`, `mlflow` and `database`.

        Raises:
            ValueError: another `barlow up` runs on this directory, the directory is not usable, its admin token is not
                a secret, or what it is to train on cannot be read.
            RuntimeError: a part does not come up; ends with the last lines of its log.
        """
        self._host_files = host_files(self.directory, *self._given, os.environ)
        self._take_lock()
        token = access.admin_token(self.directory, guarded=self._guarded)
        belong_to(self.directory)
        self._endpoints_file.unlink(missing_ok=True)
        if found := end_leftovers(self.directory, self._report, grace_seconds=20):
            self._report(f"ended {found} processes that a killed `barlow up` had left")
        state = self._load_state()
        ports: dict[str, int] = state["ports"]

        superuser, former = state["superuser_password"], state["database_password"]
        self.postgres = Postgres(self.directory, superuser, self._log("postgres"), former_password=former)
        self._start("postgres", lambda: self.postgres.start(ports["postgres"]), lambda: self.postgres.child)
        settings = self._database_settings(state)
        provision(settings)
        self._report(f"PostgreSQL  {HOST}:{self.postgres.port}")

        # MLflow takes the longest by far: it starts beside the others.
        api_url = f"http://{HOST}:{ports['api']}"
        self.mlflow = Mlflow(
            self.directory,
            _address(settings.mlflow_database_url),
            self._log("mlflow"),
            secrets.token_urlsafe(32),
            api_url,
            keeps=[held for kept in self._kept.values() for held in kept.sockets],
        )
        self._start("mlflow", lambda: self.mlflow.launch(ports["mlflow"]), lambda: self.mlflow.child)
        self.redis = Redis(self.directory, secrets.token_urlsafe(24), self._log("redis"))
        self._start("redis", lambda: self.redis.start(ports["redis"]), lambda: self.redis.child)
        self._report(f"Redis       {HOST}:{self.redis.port}")

        migrate.upgrade(settings)
        self._sessions = session_factory(make_engine(settings))
        self._completion = Completion(self.directory / "runs", backoff_seconds=settings.retry_backoff_seconds)
        database_url = _address(settings.database_url)
        environment = self._environment(database_url, ports["api"], self.mlflow.url)
        self._start_module("api", "service.api", {**environment, **token})
        self._start_module("scheduler", "service.scheduling", environment)
        self._start_module("worker", "worker", {**environment, "BARLOW_MLFLOW_TOKEN": self.mlflow.token})
        self._child("api").wait_ready(lambda: _is_ready(api_url), seconds=120)
        self._report(f"API         {api_url}  (try it at {api_url}/docs)")
        self._child("worker").wait_ready(lambda: self._node_instance() not in (None, NOBODY), seconds=120)
        self._report(f"worker      node {NODE}, run directories in {self.directory / 'runs'}")
        for line in self._host_files.said:
            self._report(line)
        self.mlflow.wait()
        self._report(f"MLflow      {self.mlflow.url}")

        shown_url = self.postgres.shown_url("barlow", "barlow", state["database_password"])
        endpoints = {"api": api_url, "mlflow": self.mlflow.url, "database": shown_url}
        write_private(self._endpoints_file, endpoints)
        for line in access.how_to_use(self.directory, api_url, token):
            self._report(line)
        return endpoints

    def tend(self) -> None:
        """Start again what has died, with a growing pause. To be called about once a second."""
        now = time.monotonic()
        for part in self._parts:
            if part.start_again_at is None:
                code = part.child.exit_code()
                if code is None:
                    continue
                if now - part.started_at > _STEADY_SECONDS:
                    part.pause = 0.0
                # Who ends with a status of its own has said why; a signal takes it in the middle of something else.
                why = log_tail(part.child.log, lines=1) if code > 0 else ""
                self._schedule(part, f"ended with exit code {code}{': ' if why else ''}{why[:_SAID]}")
            elif now >= part.start_again_at:
                part.start_again_at = None
                part.started_at = now
                try:
                    part.start()
                except (RuntimeError, SQLAlchemyError) as error:
                    self._schedule(part, str(error))

    def stop(self) -> None:
        """Stop everything: the worker drains first, PostgreSQL goes last. No process is left."""
        if self._lock is None:  # refused: what runs here is another one's
            return
        self._endpoints_file.unlink(missing_ok=True)
        for name in ("worker", "scheduler", "api", "mlflow", "redis", "postgres"):
            for part in self._parts:
                if part.name == name:
                    self._report(f"stopping {name}")
                    part.child.stop()
        self._parts.clear()
        end_leftovers(self.directory, self._report, grace_seconds=5)
        for kept in self._kept.values():
            kept.close()
        self._lock.close()
        self._lock = None

    def kill(self) -> None:
        """End everything at once, running jobs included; they go on from their last checkpoint at the next start."""
        for part in reversed(self._parts):
            part.child.grace_seconds = 0.0
        self.stop()

    def _start(self, name: str, start: Callable[[], None], child: Callable[[], Child]) -> None:
        def again() -> None:
            start()
            part.child = child()

        start()
        part = _Part(name, child(), again, started_at=time.monotonic())
        self._parts.append(part)

    def _start_module(self, name: str, module: str, environment: dict[str, str]) -> None:
        child = Child(
            name,
            [sys.executable, "-P", "-m", module],
            log=self._log(name),
            environment=environment,
            ours=True,
            keeps=[held for kept in self._kept.values() for held in kept.sockets] if name == "worker" else (),
            # The worker lets its trainers write a checkpoint first.
            grace_seconds=120 if name == "worker" else 20,
        )

        def start() -> None:
            if name == "worker":
                self._free_node()
            child.start()

        self._start(name, start, lambda: child)

    def _free_node(self) -> None:
        """Give the node's name back for a worker that could not: it is dead, we are its parent or ended it."""
        with self._sessions.begin() as session:
            instance = self._node_instance()
            if instance is not None:
                nodes.leave(session, NODE, instance, self._completion)

    def _node_instance(self) -> UUID | None:
        """Which worker process holds the node's name; None before the first one."""
        with self._sessions() as session:
            return session.scalar(select(Node.instance).where(Node.name == NODE))

    def _child(self, name: str) -> Child:
        return next(part.child for part in self._parts if part.name == name)

    def _schedule(self, part: _Part, what: str) -> None:
        part.pause = min(max(1.0, part.pause * 2), _LONGEST_PAUSE)
        part.start_again_at = time.monotonic() + part.pause
        self._report(f"{part.name} {what}; starting it again in {part.pause:g} s (log: {part.child.log})")

    def _take_lock(self) -> None:
        make_private(self.directory, self._report)
        try:
            self._lock = lock(self.directory)
        except OSError as error:
            raise ValueError(f"{self.directory} cannot be used: {error}; choose another --data") from error

    def _load_state(self) -> dict[str, Any]:
        """Passwords and ports of this directory. A port that is not named stays what it was, unless somebody else has
        it now: tokens are sent to where the stack was, too.

        Those of API and MLflow are kept from here on.
        """
        state = read_state(self.directory)
        former = state.get("ports", {})
        state["ports"] = {}
        for name, given in self._wanted.items():
            wanted = given or former.get(name) or (_FIRST.get(name, 0) if given is None else 0)
            if name in _FIRST:
                self._kept[name] = keep(wanted)
                port = self._kept[name].port
            else:
                port = port_or_free(wanted)
                while port in state["ports"].values():
                    port = port_or_free(0)
            state["ports"][name] = port
            if wanted not in (0, port):
                self._report(_taken(name, wanted, port))
        write_private(self.directory / STATE, state)
        return state

    def _database_settings(self, state: dict[str, Any]) -> Settings:
        def login(role: str, database: str, password: str) -> SecretStr:
            return SecretStr(self.postgres.url(database, role, state[password]))

        return Settings(
            database_url=login("barlow", "barlow", "database_password"),
            owner_database_url=login("barlow_owner", "barlow", "owner_password"),
            mlflow_database_url=login("mlflow", "mlflow", "mlflow_password"),
            superuser_database_url=SecretStr(self.postgres.url("postgres")),
        )

    def _environment(self, database_url: str, api_port: int, mlflow_url: str) -> dict[str, str]:
        environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": self.redis.url,
            "MLFLOW_URL": mlflow_url,
            "MLFLOW_PUBLIC_URL": mlflow_url,
            "RUNS_DIR": str(self.directory / "runs"),
            "API_HOST": HOST,
            "API_PORT": str(api_port),
            "API_PORT_SHARED": "true",
            "SAME_ACCOUNT": "true",
            "NODE_NAME": NODE,
        }
        if "BARLOW_DATA_DIR" not in os.environ:
            environment["DATA_DIR"] = str(self.directory / "data")
        if "BARLOW_CACHE_DIR" not in os.environ:
            environment["CACHE_DIR"] = str(self.directory / "cache")
        if self._slots is not None:
            environment["SLOTS"] = str(self._slots)
        environment |= self._host_files.settings
        return {f"BARLOW_{name}": value for name, value in environment.items()}

    def _log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    @property
    def _endpoints_file(self) -> Path:
        return self.directory / ENDPOINTS


def _address(url: SecretStr | None) -> str:
    assert url is not None
    return url.get_secret_value()


def _taken(name: str, wanted: int, port: int) -> str:
    others = others_at(wanted)
    if name in _FIRST:
        warning = f". Nothing of yours is to ask there for {name} any more: it would show that account its token"
    else:
        warning = f". The stack sends no password there; what else of yours asks for {name} is to ask at the new port"
    return f"port {wanted} is taken{others}; {name} gets {port}{warning if others else ''}"


def _is_ready(api_url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError), outgoing_http.client(api_url, same_account=True, timeout=10) as client:
        return client.get("/readyz").status_code == 200
    return False

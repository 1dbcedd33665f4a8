"""Roles and databases of a PostgreSQL server. The only code that needs a superuser, and nothing else is given one.

Three roles: the application's (API, scheduler, workers) reads and writes rows; the owner's migrates, and owns the
tables of the run database; MLflow's owns its own database and reaches no other. Names, passwords and databases are
those of the addresses in the settings, so that they are said once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from pydantic import SecretStr
from sqlalchemy import make_url

from service.database.engine import connect
from service.database.grants import row_rights, sql_name
from service.settings import Settings

_TURNS = 0x6261726C_6F770002  # any fixed number
_PATIENCE_SECONDS = 60.0

# What may belong to somebody: schemas, tables and their like, routines, types. Not what belongs to PostgreSQL itself or
# to an extension, nor what follows its table.
_FOREIGN = """
WITH schemas AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), kept AS (
    SELECT classid, objid FROM pg_depend WHERE deptype IN ('e', 'i') OR (deptype = 'a' AND refobjsubid > 0)
), found AS (
    SELECT 'SCHEMA' AS kind, quote_ident(nspname) AS name, nspowner AS owner, NULL AS in_public
    FROM pg_namespace WHERE oid IN (SELECT oid FROM schemas) AND nspname <> 'public'
    UNION ALL
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                        WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
           format('%%I.%%I', nspname, relname), relowner,
           CASE WHEN nspname = 'public' AND relkind IN ('r', 'p') THEN relname END
    FROM pg_class JOIN schemas ON schemas.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND NOT EXISTS (SELECT FROM kept WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid)
    UNION ALL
    SELECT 'ROUTINE', pg_proc.oid::regprocedure::text, proowner, NULL
    FROM pg_proc JOIN schemas ON schemas.oid = pronamespace
    WHERE NOT EXISTS (SELECT FROM kept WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid)
    UNION ALL
    SELECT 'TYPE', pg_type.oid::regtype::text, typowner, NULL
    FROM pg_type JOIN schemas ON schemas.oid = typnamespace
    WHERE typtype IN ('e', 'd')
      AND NOT EXISTS (SELECT FROM kept WHERE classid = 'pg_type'::regclass AND objid = pg_type.oid)
)
SELECT kind, name, in_public FROM found WHERE owner <> (SELECT oid FROM pg_roles WHERE rolname = %s) ORDER BY kind, name
"""


@dataclass(frozen=True, slots=True)
class _Login:
    role: str
    password: str
    database: str


def provision(settings: Settings) -> None:
    """Make the roles and databases that are missing, and bring a server of a former version to what new ones have.

    Former versions had one role for tables and rows, in `barlow up` a superuser. Services may run meanwhile: a table
    changes hands together with its rights. It can be stopped anywhere and run again; passwords become those of the
    settings. Without `mlflow_database_url` MLflow is left out.

    Raises:
        ValueError: the settings do not name three roles and the addresses of one server.
        psycopg.Error: the superuser cannot log in, or a table was in use for a minute.
    """
    superuser, owner, application = (
        _login(settings, name) for name in ("superuser_database_url", "owner_database_url", "database_url")
    )
    logins = [owner, application]
    if settings.mlflow_database_url is not None:
        logins.append(_login(settings, "mlflow_database_url"))
    if len({superuser.role, *(login.role for login in logins)}) <= len(logins):
        raise ValueError("superuser, owner, application and MLflow are to be roles of different names")
    if owner.database != application.database:
        raise ValueError("BARLOW_DATABASE_URL and BARLOW_OWNER_DATABASE_URL are to name one database")
    with _connect(settings, superuser.database) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_TURNS])
        for login in logins:
            _make_role(connection, login)
        connection.execute(f"REVOKE ALL ON DATABASE template1, {sql_name(superuser.database)} FROM PUBLIC")
        for login in logins:
            if login is not application:
                _make_database(connection, login, application.role if login is owner else None)
                with _connect(settings, login.database) as inside:
                    _hand_over(inside, login.role, application.role if login is owner else None)


def _login(settings: Settings, name: str) -> _Login:
    secret: SecretStr | None = getattr(settings, name)
    url = make_url(secret.get_secret_value()) if secret is not None else None
    if url is None or not (url.username and url.password and url.database):
        raise ValueError(f"BARLOW_{name.upper()} is to be postgresql://user:password@host/database")
    return _Login(url.username, str(url.password), url.database)


def _connect(settings: Settings, database: str) -> psycopg.Connection[tuple[Any, ...]]:
    assert settings.superuser_database_url is not None
    url = make_url(settings.superuser_database_url.get_secret_value()).set(drivername="postgresql", database=database)
    return connect(url.render_as_string(hide_password=False), autocommit=True, connect_timeout=10)


def _make_role(connection: psycopg.Connection[tuple[Any, ...]], login: _Login) -> None:
    role = sql_name(login.role)
    if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [login.role]).rowcount:
        connection.execute(f"CREATE ROLE {role}")
    # As what the server keeps of it, so that a log that shows the statement shows no password.
    kept = connection.pgconn.encrypt_password(login.password.encode(), login.role.encode(), b"scram-sha-256").decode()
    connection.execute(
        f"ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '{kept}'"
    )


def _make_database(connection: psycopg.Connection[tuple[Any, ...]], owner: _Login, guest: str | None) -> None:
    name, role = sql_name(owner.database), sql_name(owner.role)
    if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [owner.database]).rowcount:
        # Encoding and order of text are said here: those of the server depend on where it was made.
        connection.execute(f"CREATE DATABASE {name} OWNER {role} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    with connection.transaction():
        connection.execute(f"ALTER DATABASE {name} OWNER TO {role}")
        connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        if guest is not None:
            connection.execute(f"REVOKE ALL ON DATABASE {name} FROM {sql_name(guest)}")
            connection.execute(f"GRANT CONNECT ON DATABASE {name} TO {sql_name(guest)}")


def _hand_over(connection: psycopg.Connection[tuple[Any, ...]], owner: str, guest: str | None) -> None:
    """Give `owner` everything in this database, one thing after another: no two are ever locked at once."""
    connection.execute("SET lock_timeout = '2s'")
    for kind, name, table in connection.execute(_FOREIGN, [owner]).fetchall():
        statements = [f"ALTER {kind} {name} OWNER TO {sql_name(owner)}"]
        if guest is not None and table is not None:
            statements += row_rights(guest, [table])
        _in_time(connection, statements)


def _in_time(connection: psycopg.Connection[tuple[Any, ...]], statements: Sequence[str]) -> None:
    """All of them or none, as soon as those who use the table let it go. They are let through in between."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            with connection.transaction():
                for statement in statements:
                    connection.execute(statement)
            return
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)

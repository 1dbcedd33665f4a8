"""Bring the run database to the newest schema. Never done by the API at start: readiness is false until it is done."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Engine, func, inspect, make_url, select
from sqlalchemy.exc import ProgrammingError

from service.database.engine import make_engine
from service.database.grants import row_rights
from service.settings import Settings


class SchemaMismatch(ValueError):
    """The run database is of another version than this code."""


class NotTheOwner(ValueError):
    """The role that is to migrate may not change the tables."""


# Any fixed number; two processes that migrate at once take turns.
_MIGRATION_LOCK = 0x6261726C_6F770001


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Run every migration up to `revision` that is not applied yet, in one transaction, one process at a time.

    It is done as the owner of the tables, who then gives the role of `settings.database_url` its rights to them.

    Raises:
        NotTheOwner: this role may not change the tables.
    """
    engine = make_engine(settings.as_owner())
    try:
        with engine.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            role = make_url(settings.sqlalchemy_url).username
            if role is not None and role != engine.url.username:
                for statement in row_rights(role, inspect(connection).get_table_names("public")):
                    connection.exec_driver_sql(statement)
    except ProgrammingError as error:
        if isinstance(error.orig, InsufficientPrivilege):
            raise NotTheOwner(
                f"the role {engine.url.username} may not change the run database: {error.orig.diag.message_primary};"
                " let BARLOW_OWNER_DATABASE_URL name its owner, or BARLOW_DATABASE_URL, where one role does all"
            ) from error
        raise
    finally:
        engine.dispose()


def current_and_head(engine: Engine) -> tuple[str | None, str]:
    """The revision the database is at (None: empty) and the one this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "the package holds at least one migration"
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision(), head


def require_head(engine: Engine) -> None:
    """Refuse a database of another version: what is written there would be wrong, or fail in the middle of a job.

    Raises:
        SchemaMismatch: says both versions and what to do. An empty database is none: it is about to be migrated.
    """
    current, head = current_and_head(engine)
    if current is None or current == head:
        return
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    remedy = (
        "migrate it with `python -m service.database upgrade`, once every service is of this version"
        if current in known
        else "it is newer: bring this installation to the version of the API"
    )
    raise SchemaMismatch(f"the run database is at schema {current}, and this version works with {head}: {remedy}")


def _config() -> Config:
    config = Config()
    # A package resource, so that it works from an installed wheel and from any folder.
    config.set_main_option("script_location", "service.database:migrations")
    return config

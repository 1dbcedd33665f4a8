"""What the role of API, scheduler and workers may do in the run database: with rows, and with nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from psycopg import sql

_ROWS = "SELECT, INSERT, UPDATE, DELETE"
_LESS = {"alembic_version": "SELECT", "audit": "SELECT, INSERT"}


def row_rights(role: str, tables: Iterable[str]) -> Iterator[str]:
    """The statements, to be run by the owner, that give `role` what it may do with `tables` of the schema public."""
    to = sql_name(role)
    for table in tables:
        yield f"REVOKE ALL ON TABLE public.{sql_name(table)} FROM {to}"
        yield f"GRANT {_LESS.get(table, _ROWS)} ON TABLE public.{sql_name(table)} TO {to}"


def sql_name(name: str) -> str:
    """A name as it stands in SQL."""
    return sql.Identifier(name).as_string(None)

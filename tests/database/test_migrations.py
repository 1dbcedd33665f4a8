"""One head, models and migrations agree, and a database can be brought up from nothing by several at once."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from service.database.engine import make_engine, session_factory
from service.database.migrate import _config, current_and_head, upgrade
from service.database.tables import AuditEntry, Base, Experiment, Job, Node, Token
from service.local.servers import Postgres
from service.settings import Settings


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Settings]:
    """Settings of a database without a single table."""
    name = f"empty_{secrets.token_hex(6)}"
    postgres.create_database(name)
    yield Settings(database_url=postgres.url(name))
    postgres.drop_database(name)


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory.from_config(_config()).get_heads()) == 1


def test_an_upgraded_empty_database_equals_the_models(empty: Settings) -> None:
    upgrade(empty)
    engine = make_engine(empty)
    with engine.connect() as connection:
        # Defaults are compared too: the models say uuidv7() and now(), and so must the tables.
        context = MigrationContext.configure(connection, opts={"compare_server_default": True, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        names = set(inspect(connection).get_table_names())
        checks = {
            (table, check["name"], check["sqltext"])
            for table in names - {"alembic_version"}
            for check in inspect(connection).get_check_constraints(table)
        }
    engine.dispose()
    assert names == {*Base.metadata.tables, "alembic_version"}
    assert checks == _checks_made_by_the_models(empty)


def _checks_made_by_the_models(settings: Settings) -> set[tuple[str, str | None, str]]:
    # Autogenerate compares neither check constraints nor partial-index predicates, so they are read back and compared.
    engine = make_engine(settings)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA models"))
        connection.execute(text("SET search_path TO models"))
        Base.metadata.create_all(connection)
        checks = {
            (table, check["name"], check["sqltext"])
            for table in Base.metadata.tables
            for check in inspect(connection).get_check_constraints(table)
        }
        indexes = {}
        for schema in ("public", "models"):
            found = connection.execute(
                text("SELECT replace(indexdef, schemaname || '.', '') FROM pg_indexes WHERE schemaname = :s"),
                {"s": schema},
            )
            indexes[schema] = {row[0] for row in found if "alembic_version" not in row[0]}
    engine.dispose()
    assert indexes["public"] == indexes["models"]
    return checks


def test_current_is_none_before_and_head_after(empty: Settings) -> None:
    engine = make_engine(empty)
    current, head = current_and_head(engine)
    assert current is None
    upgrade(empty)
    assert current_and_head(engine) == (head, head)
    engine.dispose()


def test_several_upgrades_at_once_take_turns_and_keep_the_rows(empty: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(upgrade, empty) for _ in range(4)]:
            future.result()
    engine = make_engine(empty)
    with session_factory(engine)() as session:
        session.add(Experiment(name="kept"))
        session.commit()
        upgrade(empty)
        assert session.query(Experiment).one().name == "kept"
    engine.dispose()


def test_jobs_of_the_first_release_get_what_the_second_one_needs(empty: Settings) -> None:
    upgrade(empty, "0001")
    engine = make_engine(empty)
    spec = {"data": {"name": "digits"}, "run": {"priority": 0}}
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO experiments (name) VALUES ('old')"))
        connection.execute(
            text(
                "INSERT INTO jobs"
                " (experiment_id, kind, name, spec, spec_digest, state, priority, order_key, slots, nodes)"
                " SELECT id, 'pretrain', 'old', :spec, '', 'queued', 0, 0, 1, 1 FROM experiments"
            ),
            {"spec": json.dumps(spec)},
        )
    upgrade(empty)
    with session_factory(engine)() as session:
        job = session.query(Job).one()
        assert (job.data_set, job.preemptible, job.preempting, job.reserved_node) == ("digits", False, False, None)
    engine.dispose()


def test_a_database_of_the_release_before_tokens_gets_them_and_keeps_its_jobs(empty: Settings) -> None:
    upgrade(empty, "0003")
    engine = make_engine(empty)
    with session_factory(engine)() as session:
        session.execute(text("INSERT INTO experiments (name) VALUES ('kept')"))
        session.commit()
        upgrade(empty)
        assert session.query(Experiment).one().name == "kept"
        given = {"user_name": "alice", "created_by": "bootstrap"}
        session.add(Token(name="alice", sha256="00", role="reader", **given))
        session.commit()
        for name, sha256, role in (("bob", "00", "reader"), ("alice", "01", "reader"), ("bob", "01", "owner")):
            session.add(Token(name=name, sha256=sha256, role=role, **given))
            with pytest.raises(IntegrityError):
                session.commit()
            session.rollback()
    engine.dispose()


def test_tokens_of_the_release_before_users_are_users_and_keep_their_jobs(empty: Settings) -> None:
    upgrade(empty, "0004")
    engine = make_engine(empty)
    spec = json.dumps({"data": {"name": "digits"}, "run": {"priority": 0}})
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO experiments (name) VALUES ('old')"))
        connection.execute(
            text("INSERT INTO tokens (name, sha256, role, created_by) VALUES ('alice', '00', 'submitter', 'bootstrap')")
        )
        for submitter in ("alice", "bootstrap", "anonymous", None):
            job = connection.scalar(
                text(
                    "INSERT INTO jobs"
                    " (experiment_id, kind, name, spec, spec_digest, state, priority, order_key, slots, nodes)"
                    " SELECT id, 'pretrain', :name, :spec, '', 'queued', 0, 0, 1, 1 FROM experiments RETURNING id"
                ),
                {"spec": spec, "name": f"of-{submitter}"},
            )
            for seq, actor in enumerate((submitter, "alice"), 1):
                if submitter is not None:
                    event = (
                        "INSERT INTO events (job_id, seq, kind, actor, payload) VALUES (:job, :seq, '', :actor, '{}')"
                    )
                    connection.execute(text(event), {"job": job, "seq": seq, "actor": actor})
    upgrade(empty)
    with session_factory(engine)() as session:
        token = session.query(Token).one()
        assert (token.name, token.user_name, token.expires_at) == ("alice", "alice", None)
        owners = {job.name: job.user_name for job in session.query(Job)}
        assert owners == {"of-alice": "alice", "of-bootstrap": None, "of-anonymous": None, "of-None": None}
    engine.dispose()


def test_of_a_node_of_before_it_is_not_known_which_backbones_it_has(empty: Settings) -> None:
    upgrade(empty, "0006")
    engine = make_engine(empty)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO nodes (name, instance, versions, data_sets, cores, memory_bytes)"
                " VALUES ('host', :instance, '{}', '{}', 1, 1)"
            ),
            {"instance": uuid.uuid4()},
        )
    upgrade(empty)
    with session_factory(engine)() as session:
        assert session.query(Node).one().backbones is None
    engine.dispose()


def test_an_experiment_of_before_does_not_vary(empty: Settings) -> None:
    upgrade(empty, "0007")
    engine = make_engine(empty)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO experiments (name) VALUES ('kept')"))
    upgrade(empty)
    with session_factory(engine)() as session:
        experiment = session.query(Experiment).one()
        assert (experiment.varies, experiment.mlflow_run_id, experiment.mlflow_told) == (False, None, {})
    engine.dispose()


def test_nobody_changes_the_audit_trail(empty: Settings) -> None:
    upgrade(empty)
    engine = make_engine(empty)
    with session_factory(engine)() as session:
        session.add(AuditEntry(actor="alice", user_name="alice", action="token.create", subject="bob"))
        session.commit()
        for statement in ("UPDATE audit SET actor = 'bob'", "DELETE FROM audit", "TRUNCATE audit"):
            with pytest.raises(IntegrityError, match="only ever added"):
                session.execute(text(statement))
            session.rollback()
        assert session.query(AuditEntry).one().detail == {}
    engine.dispose()


def test_the_command_works_from_any_folder(empty: Settings, tmp_path: Path) -> None:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service.database", command],
            cwd=tmp_path,
            env={"BARLOW_DATABASE_URL": empty.database_url.get_secret_value()},
            capture_output=True,
            text=True,
            timeout=120,
        )

    pending = run("current")
    assert pending.returncode == 1
    assert "database at nothing" in pending.stdout
    done = run("upgrade")
    assert (done.returncode, done.stderr) == (0, "")
    assert run("current").returncode == 0

"""Every inner connection is made of our settings alone, whatever the shell has for other projects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import foreign_shell
import pytest
from http_ears import Ears
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from service.broker import make_celery
from service.database.engine import connect, make_engine
from service.settings import Settings
from service.shell_environment import for_other_servers, of_a_program_of_ours


def test_the_database_is_that_of_the_url(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in foreign_shell.POSTGRES.items():
        monkeypatch.setenv(name, value)
    engine = make_engine(database)
    with engine.connect() as connection:
        found = [connection.scalar(text(f"SHOW {name}")) for name in ("search_path", "application_name", "TimeZone")]
        assert connection.scalar(text("SELECT current_database()")) == engine.url.database
    engine.dispose()
    assert found == ['"$user", public', "", "UTC"]


@pytest.mark.parametrize("variable", sorted(foreign_shell.POSTGRES))
def test_each_variable_of_libpq_is_disowned(database: Settings, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, foreign_shell.POSTGRES[variable])
    connect(database.database_url.get_secret_value()).close()


def test_what_the_url_leaves_out_is_the_default_of_libpq(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in postgresql:///name?host=...: the user's own way of writing it."""
    parts = conninfo_to_dict(database.database_url.get_secret_value())
    query = "&".join(f"{name}={parts[name]}" for name in ("host", "port", "user", "password"))
    settings = Settings(database_url=f"postgresql:///{parts['dbname']}?{query}")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=theirs")
    engine = make_engine(settings)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_database()")) == parts["dbname"]
        assert connection.scalar(text("SHOW search_path")) == '"$user", public'
    engine.dispose()


def test_the_broker_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in foreign_shell.CELERY.items():
        monkeypatch.setenv(name, value)
    app = make_celery(Settings(database_url="postgresql://unused", redis_url="redis://127.0.0.1:6400/5"))
    for connection in (app.connection_for_read(), app.connection_for_write()):
        assert (connection.hostname, connection.port, connection.virtual_host) == ("127.0.0.1", 6400, "5")
    assert app.conf.result_backend is None


_RECORD = """
import sys
from service.shell_environment import disown_all
disown_all()
from worker.recorder.mlflow_run import make_client
print(len(make_client(sys.argv[1], "the-token-of-the-recorder").search_experiments()))
"""


def test_the_recorder_asks_mlflow_directly_and_as_itself(tmp_path: Path) -> None:
    """By MLflow's client, which takes proxies and passwords from the environment and from files of the home."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login them password theirs\n")
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / ".mlflow").mkdir()
    credentials = "[mlflow]\nmlflow_tracking_username = them\nmlflow_tracking_password = theirs\n"
    (tmp_path / ".mlflow" / "credentials").write_text(credentials)
    with Ears(b'{"experiments": []}') as mlflow, Ears(b"{}") as proxy:
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"), proxy.url)
        environment = {**os.environ, **foreign_shell.MLFLOW, **foreign_shell.PROXIES, **proxies, "HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-P", "-c", _RECORD, mlflow.url],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout == "0\n", done.stderr
        assert proxy.heard == []
        (heard,) = mlflow.heard
    assert heard.path.startswith("/api/2.0/mlflow/experiments/search")
    assert "theirs" not in json.dumps(heard.headers)
    kind, _, said = heard.headers["authorization"].partition(" ")
    assert (kind, b64decode(said)) == ("Basic", b"barlow:the-token-of-the-recorder")


def test_children_of_the_stack_get_what_they_need_and_no_more() -> None:
    both = {"PATH": "/bin", "HOME": "/home/me", "PYTHONPATH": "/my/own", "LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
    ours = {"CUDA_VISIBLE_DEVICES": "0", "BARLOW_TICK_SECONDS": "1"}
    environment = {
        **foreign_shell.VARIABLES,
        "PYTHONINSPECT": "1",
        "AWS_SECRET_ACCESS_KEY": "x",
        "BARLOW_TOKEN": "x",
        **ours,
        **both,
    }
    assert for_other_servers(environment).keys() == both.keys()
    given = of_a_program_of_ours(environment)
    assert given.keys() >= {*both, *ours}
    proxies = {name for name in foreign_shell.PROXIES if name.lower().endswith("_proxy")}
    foreign = (foreign_shell.POSTGRES, foreign_shell.CELERY, foreign_shell.MLFLOW, foreign_shell.SERVERS, proxies)
    for kind in (*foreign, foreign_shell.PYTHON):
        assert given.keys().isdisjoint(kind)
    assert given.keys().isdisjoint({"BARLOW_TOKEN", "PYTHONINSPECT"})
    for path in (":/my/own", "/my/own:", "::/my/own"):
        for environment_of in (for_other_servers, of_a_program_of_ours):
            assert environment_of({**environment, "PYTHONPATH": path})["PYTHONPATH"] == "/my/own"
            assert "PYTHONPATH" not in environment_of({"PYTHONPATH": ":"})

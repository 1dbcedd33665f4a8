"""An address whose password is not percent-encoded is refused with the remedy, and no part of it is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import make_url

from service.addresses import check_address
from service.api.presentation import mlflow_base
from service.settings import Settings
from service.tracking.settings import TrackingSettings
from worker.recorder.mlflow_run import make_client

SCHEMES = ("postgresql",)
HOST = "postgresql://barlow:{}@db.example:5432/lab"
PASSWORDS = [
    *("se@cret", "se/cret", "se#cret", "se%cret", "se?cret", "se%4xcret", "se cret", "se[cret", "se]cret"),
    *("@secret", "secret@", "12/secret", "12?secret", "se@1/cret", "se@1?x=1cret", "/se@cr:et", "se:c@ret", "secret\n"),
]
ODD = ["se%00cret", "se%FFcret", "se%C3cret"]
"""Percent-encoded, and no text."""


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("database_url", HOST),
        ("redis_url", "redis://:{}@redis.example:6379/0"),
        ("mlflow_url", "https://lab:{}@mlflow.example"),
    ],
)
def test_a_raw_password_is_refused_without_any_part_of_it(name: str, url: str, password: str) -> None:
    given = {"database_url": "postgresql://unused", name: url.format(password)}
    with pytest.raises(ValidationError) as caught:
        Settings(**given)  # type: ignore[arg-type]
    said = str(caught.value)
    assert "percent-encoded (@ is %40" in said
    assert "cret" not in said
    assert Settings(**{**given, name: url.format(quote(password, safe=""))})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        *(("database_url", HOST.format(password)) for password in ODD),
        *(("redis_url", f"redis://:{password}@127.0.0.1:6379/0") for password in (*ODD, "se;cret", ";secret")),
        ("redis_url", "redis://:hunter@127.0.0.1:6379;redis://:secret@127.0.0.1:6380"),
        ("database_url", "postgresql://barlow:secret@db.example:/lab"),
    ],
)
def test_what_two_libraries_read_in_two_ways_is_refused(name: str, url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**{"database_url": "postgresql://unused", name: url})  # type: ignore[arg-type]
    assert "percent-encoded (@ is %40" in str(caught.value)
    assert "cret" not in str(caught.value)


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1))
def test_every_password_is_taken_percent_encoded(password: str) -> None:
    url = HOST.format(quote(password, safe=""))
    check_address(url, SCHEMES)
    assert make_url(url).password == password


@given(st.text(st.sampled_from("ab1@/?#%:[]=&,"), min_size=1))
def test_what_is_taken_is_read_as_it_was_meant(password: str) -> None:
    """Whatever stands there raw: either it is the password, or it is refused."""
    try:
        check_address(HOST.format(password), SCHEMES)
    except ValueError:
        return
    read = make_url(HOST.format(password))
    assert (read.host, read.port, read.database) == ("db.example", 5432, "lab")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///lab?host=/run/postgresql&user=me",
        "postgresql://%2Frun%2Fpostgresql/lab",
        "postgresql://me@[::1]:5432/lab?sslmode=require",
        "postgresql://me:a:b!$&'()*+,;=~-._@one.example:5432,two.example/lab?target_session_attrs=read-write",
        "postgresql://unused",
    ],
)
def test_what_is_well_written_is_taken(url: str) -> None:
    check_address(url, SCHEMES)


@pytest.mark.parametrize("url", ["secret", "mysql://a:secret@b/c", "", "postgresql:/secret"])
def test_another_scheme_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with postgresql://") as caught:
        check_address(url, SCHEMES)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("module", ["service.api", "service.scheduling", "service.database", "worker", "worker.health"])
def test_each_program_says_it_in_a_line(module: str) -> None:
    environment = {**os.environ, "BARLOW_DATABASE_URL": HOST.format("se@cret")}
    command = [sys.executable, "-m", module, *(["current"] if module == "service.database" else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("BARLOW_DATABASE_URL: it cannot be read: ")
    assert "cret" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["public_url", "mlflow_public_url", "api_url"])
@pytest.mark.parametrize(
    "url",
    [
        *("http://me:hunter2@lab", "http://me:hun@ter2@lab", "http://lab/?key=hunter2"),
        *(
            "http://me:hunter2%40lab",
            "http://me:hunter2＠lab",
            "http://hunter2＠lab",
            "me:hunter2%40lab",
            "http://me:hunter2",
        ),
    ],
)
def test_an_address_that_people_are_shown_holds_no_password(name: str, url: str) -> None:
    tracking = {"mlflow_database_url": "postgresql://unused", "mlflow_artifacts_dir": ".", "mlflow_token": "x" * 32}
    for settings, others in ((Settings, {"database_url": "postgresql://unused"}), (TrackingSettings, tracking)):
        if name in settings.model_fields:
            with pytest.raises(ValidationError, match="it is shown to people, and is to have no user name") as caught:
                settings(**{**others, name: url})  # type: ignore[arg-type]
            assert "ter2" not in str(caught.value)


def test_the_password_of_the_workers_mlflow_is_in_no_link_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(database_url="postgresql://unused", mlflow_url="http://lab:hun%40ter2@127.0.0.1:9/mlflow/")  # type: ignore[arg-type]
    assert mlflow_base(settings) == "http://127.0.0.1:9/mlflow"
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "x")
    client = make_client(settings.mlflow_url, "the token")
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("lab", "hun@ter2")
    with pytest.raises(Exception, match="Connection refused") as caught:
        client.search_experiments()
    assert "ter2" not in str(caught.value)

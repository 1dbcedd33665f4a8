"""Settings that cannot work are refused before anything starts; where they come from, and that secrets stay secret."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from service import settings
from service.settings import MAKE_TOKEN, Settings

DATABASE = "postgresql://user:password@host/name"


@pytest.mark.parametrize("late", ["heartbeat", "poll"])
def test_what_happens_once_in_a_lease_must_fit_it_twice(late: str) -> None:
    Settings(database_url=DATABASE, lease_seconds=30.0, **{f"{late}_seconds": 15.0})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=f"BARLOW_{late.upper()}_SECONDS 16 must be at most half of .* 30, or "):
        Settings(database_url=DATABASE, lease_seconds=30.0, **{f"{late}_seconds": 16.0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "token", ["", "barlow_" + 24 * "x", 31 * "x", 40 * "x" + " ", "x" * 20 + " " + "x" * 20, 40 * "é"]
)
def test_a_token_that_is_guessed_or_sent_badly_is_refused_with_the_remedy(
    token: str,
) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(database_url=DATABASE, admin_token=token)  # type: ignore[arg-type]
    assert MAKE_TOKEN in str(caught.value)
    assert not token.strip() or token not in str(caught.value)
    assert "password" not in str(caught.value)


def test_the_command_makes_a_token_that_is_taken() -> None:
    _, *arguments = shlex.split(MAKE_TOKEN)
    made = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=60)
    token = Settings(database_url=DATABASE, admin_token=made.stdout.strip()).admin_token  # type: ignore[arg-type]
    assert token is not None
    assert len(token.get_secret_value()) == 50


def test_secrets_are_files_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SECRETS_DIR", tmp_path)
    for name in ("BARLOW_DATABASE_URL", "BARLOW_ADMIN_TOKEN", "BARLOW_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "barlow_database_url").write_text(DATABASE + "\n")
    (tmp_path / "barlow_redis_url").write_text("redis://of-the-file/0")
    monkeypatch.setenv("BARLOW_REDIS_URL", "redis://of-the-environment/0")
    found = Settings()
    assert found.database_url.get_secret_value() == DATABASE
    assert found.redis_url.get_secret_value() == "redis://of-the-environment/0"
    assert found.admin_token is None
    (tmp_path / "barlow_admin_token").write_text("short\n")
    with pytest.raises(ValidationError, match="BARLOW_ADMIN_TOKEN must be"):
        Settings()


def test_without_the_folder_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SECRETS_DIR", tmp_path / "absent")
    monkeypatch.setenv("BARLOW_DATABASE_URL", DATABASE)
    assert Settings().database_url.get_secret_value() == DATABASE

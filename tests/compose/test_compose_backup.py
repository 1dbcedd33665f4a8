"""docker/backup.sh and docker/restore.sh: a new system shows the same jobs, and goes on."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from deployment import Deployment, run
from fault_stack import pretrain
from oracle import Oracle, Undisturbed

KEPT = "barlow-test-kept"


def test_a_new_system_from_a_backup_shows_the_same_jobs_and_goes_on(
    system: Deployment, oracle: Oracle, tmp_path: Path
) -> None:
    spec = pretrain(epochs=60)
    oracle.prepare(spec)
    done = system.submit(pretrain(), "done-before-the-backup")
    oracle.check(done)
    open_job = system.submit(spec, "open-at-the-backup")
    system.wait(lambda: system.reached(open_job, 40), "the job is in mid-run")
    into = tmp_path / "backup"
    _script(system, "backup", into)
    assert {path.name for path in into.iterdir()} == {"env", "barlow.dump", "mlflow.dump", "runs.tar", "artifacts.tar"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in into.iterdir()} == {0o600}
    with pytest.raises(AssertionError, match="is there already"):
        _script(system, "backup", into)
    oracle.check(open_job, outcomes=["drained", "ok"])  # here it goes on, too
    with pytest.raises(AssertionError, match="holds data already"):
        _script(system, "restore", into)
    system.compose("stop")

    other = Deployment(tmp_path)
    with pytest.raises(AssertionError, match="holds other secrets than the backup"):
        _script(other, "restore", into)
    other.env_file.unlink()
    # As on a host that has built nothing yet.
    run(["docker", "tag", "barlow-lab-api", KEPT])
    run(["docker", "image", "rm", "barlow-lab-api"])
    try:
        _script(other, "restore", into)
        other.up()
        judge = Oracle(other, Undisturbed(tmp_path))  # what was restored, by runs of its own
        judge.prepare(spec)
        judge.check(done)
        judge.check(open_job, outcomes=["drained", "ok"])
    finally:
        other.end()
        run(["docker", "tag", KEPT, "barlow-lab-api"])
        run(["docker", "image", "rm", KEPT])
        system.up()


def _script(system: Deployment, name: str, folder: Path) -> str:
    compose = " ".join(system.command())
    return run(["sh", f"docker/{name}.sh", str(folder)], COMPOSE=compose, ENV_FILE=str(system.env_file))

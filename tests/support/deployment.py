"""The system in containers, as `make up` starts it: one compose project with volumes and secrets of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack_view import StackView

from barlow_lab.run_folder import run_folder
from service.database.engine import make_engine
from service.settings import Settings

ROOT = Path(__file__).parents[2]
MORE = Path("tests/compose/more.yml")
QUICK = {
    "BARLOW_LEASE_SECONDS": "12",
    "BARLOW_HEARTBEAT_SECONDS": "1",
    "BARLOW_POLL_SECONDS": "3",
    "BARLOW_STOP_GRACE_SECONDS": "10",
    "BARLOW_SLOTS": "2",
}
LONGEST_SECONDS = 1800
"""What a build of the images may take where nothing is cached: the worker's holds torch with its CUDA libraries."""


@dataclass
class Deployment(StackView):
    """One compose project. `place` holds its secrets and copies of run directories."""

    place: Path
    files: Sequence[Path] = (Path("docker-compose.yml"), MORE)
    project: str = field(default_factory=lambda: f"barlow-test-{secrets.token_hex(3)}")

    def __post_init__(self) -> None:
        self.env_file = self.place / f"{self.project}.env"
        write_secrets(self.env_file)
        ports = {name: str(_free_port()) for name in ("BARLOW_API_PORT", "BARLOW_MLFLOW_PORT", "TEST_POSTGRES_PORT")}
        self.append(**QUICK, **ports, BARLOW_NODE_NAME="node-1")

    def append(self, **settings: str) -> None:
        """More settings, as a user would write them into .env; the last of a name counts."""
        with self.env_file.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    def secret(self, name: str) -> str:
        """The value of a setting."""
        found = [
            line.partition("=")[2] for line in self.env_file.read_text().splitlines() if line.startswith(f"{name}=")
        ]
        return found[-1]

    def command(self, *arguments: str) -> list[str]:
        """The command line of `docker compose` for this project."""
        files = [word for file in self.files for word in ("--file", str(file))]
        project = ["--project-name", self.project, "--env-file", str(self.env_file)]
        return ["docker", "compose", *project, *files, *arguments]

    def compose(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """Run `docker compose`; what it printed.

        Raises:
            AssertionError: it failed; holds the end of what it said.
        """
        return run(self.command(*arguments), text=text, check=check)

    def up(self, *arguments: str) -> None:
        """`make up`, without the build."""
        self.compose("up", "--detach", "--wait", *arguments)
        self.connect()

    def connect(self) -> None:
        """Read where everything answers, and the token."""
        self.token, self.mlflow_token = self.secret("BARLOW_ADMIN_TOKEN"), self.secret("BARLOW_MLFLOW_TOKEN")
        self.endpoints = {
            "api": f"http://127.0.0.1:{self.secret('BARLOW_API_PORT')}",
            "mlflow": f"http://127.0.0.1:{self.secret('BARLOW_MLFLOW_PORT')}",
            "database": self._database("barlow", "BARLOW_DATABASE_PASSWORD"),
            "owner": self._database("barlow_owner", "BARLOW_OWNER_PASSWORD"),
        }
        self.engine = make_engine(Settings(database_url=self.endpoints["database"]))

    def _database(self, role: str, password: str) -> str:
        return f"postgresql://{role}:{self.secret(password)}@127.0.0.1:{self.secret('TEST_POSTGRES_PORT')}/barlow"

    def down(self, *arguments: str) -> None:
        self.compose("down", *arguments)

    def end(self) -> None:
        """Leave nothing, whatever happened."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "20", check=False)

    def containers(self) -> list[dict[str, Any]]:
        """Every container of the project, in whatever state."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        return [json.loads(line) for line in lines if line]

    def container(self, service: str) -> str:
        """The id of the container of a service."""
        return self.compose("ps", "--quiet", "--all", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine says of the container of a service."""
        (found,) = json.loads(run(["docker", "inspect", self.container(service)]))
        return dict(found)

    def kill_from_within(self, service: str) -> None:
        """kill -9 of the main process by the kernel's hand, as when memory runs out: the restart policy takes over.

        A `docker kill` would count as the wish to have it stopped.
        """
        found = self.inspect(service)
        run([*_ROOT_OF_HOST, "kill", "-9", str(found["State"]["Pid"])])

    def run(self, job_id: uuid.UUID) -> Path:
        """A copy of the job's run directory, of this moment of the job."""
        job = self.job(job_id)
        copy = self.place / "runs" / f"{job.id}-{job.event_seq}"
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            self.compose("cp", f"api:{run_folder(Path('/data/runs'), job_id)}", str(copy))
        return copy

    def marked(self, attempt_id: uuid.UUID) -> list[int]:
        script = f"from worker.process import marked; print(*marked('{attempt_id}'))"
        workers = [found["Service"] for found in self.containers() if found["Service"].startswith("worker")]
        return [
            int(pid) for worker in workers for pid in self.compose("exec", "-T", worker, "python", "-c", script).split()
        ]

    def reached(self, job_id: uuid.UUID, step: int) -> bool:
        """Whether the metrics of this step of a running job are in the database."""
        return self.ask(lambda client: next(client.metrics(job_id, key=["loss"], from_step=step), None)) is not None


def write_secrets(file: Path) -> None:
    """docker/secrets.sh, as `make up` runs it."""
    run(["sh", str(ROOT / "docker" / "secrets.sh"), str(file)])


def run(command: Sequence[str], *, text: str | None = None, check: bool = True, **environment: str) -> str:
    """Run a command of the host in the root of this repository; what it printed.

    Raises:
        AssertionError: it failed; holds the end of what it said.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG") if name in os.environ}
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**kept, **environment},
        timeout=LONGEST_SECONDS,
    )
    said = (done.stdout + done.stderr)[-4000:]
    assert not check or done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}\n{said}"
    return done.stdout


_ROOT_OF_HOST = () if os.geteuid() == 0 else ("sudo",)


def there() -> bool:
    """Whether this machine has a Docker engine with Compose 2 that answers."""
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(["docker", "compose", "version"], capture_output=True)
    return done.returncode == 0 and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

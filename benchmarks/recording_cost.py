"""What recording costs a training step: the journal alone, the cadence of its metrics, and the recorders behind it.

    python benchmarks/recording_cost.py [--events 20000] [--pairs 3] [--rounds 4] [--seconds 8]

The journal is timed by itself. Two cadences are compared by the trainer alone, run in turn. The recorders are judged
within one run under `barlow up`, whose parts are frozen in turn while it trains: with the worker frozen nobody reads
the journal, and that is what the other phases are compared with. The model is the smallest there is, so that the
share of recording is the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from barlow_lab.journal import Journal, read_events
from barlow_lab.run_folder import JOURNAL, attempt_folder

SPEC: dict[str, Any] = {
    "kind": "pretrain",
    "data": {"name": "digits"},
    "views": {"preset": "small_images", "size": 16},
    "backbone": {"name": "tiny"},
    "projector": {"widths": [64, 64]},
    "optimizer": {"name": "adamw", "learning_rate": 0.003, "reference_batch_size": None},
    "batch_size": 64,
}
VALUES = {f"metric_{n}": 0.1234567890123 * n for n in range(12)}
FROZEN = {"all running": None, "MLflow frozen": "mlflow", "PostgreSQL frozen": "postgres", "worker frozen": "worker"}
BASELINE = "worker frozen"
WORDS = {"mlflow": "service.tracking", "postgres": "/bin/postgres", "worker": "worker"}
WARM_UP_STEPS = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20000, help="journal events that are timed")
    parser.add_argument("--pairs", type=int, default=3, help="runs by hand per cadence")
    parser.add_argument("--rounds", type=int, default=4, help="how often each part is frozen")
    parser.add_argument("--seconds", type=float, default=8.0, help="for how long; less than a third of the lease")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="barlow-") as folder:
        event = journal_seconds(Path(folder) / "bare.jsonl", given.events)
        show("one journal event, 12 values", event, 1e6, "us")
        step = {every: by_hand(Path(folder), every, 0) for every in (1, 10)}
        for pair in range(1, given.pairs):
            for every in (1, 10):
                step[every] += by_hand(Path(folder), every, pair)
        for every, seconds in step.items():
            show(f"step by hand, metrics every {every}", seconds, 1e3, "ms")
        median = statistics.median(step[10])
        for every in (1, 10):
            print(f"  journal per step, metrics every {every}: {statistics.mean(event) / every / median:.4%} of a step")
        phases = under_the_stack(Path(folder) / "lab", given.rounds, given.seconds)
        baseline = statistics.median(phases[BASELINE])
        for name, seconds in phases.items():
            show(f"step, {name}", seconds, 1e3, "ms", f"{statistics.median(seconds) / baseline - 1:+.2%} of the median")


def journal_seconds(path: Path, events: int) -> list[float]:
    """Seconds of each append of one metrics event."""
    journal, seconds = Journal(path), []
    for step in range(events):
        begin = time.perf_counter()
        journal.metrics(step, 1, VALUES)
        seconds.append(time.perf_counter() - begin)
    journal.close()
    return seconds


def by_hand(folder: Path, every: int, number: int) -> list[float]:
    """Step times of a run without a worker."""
    run = folder / f"every-{every}-{number}"
    run.mkdir()
    file = run / "given.yaml"
    record = {"metrics_every_steps": every}
    file.write_text(yaml.safe_dump({**SPEC, "epochs": 8, "run": {"record": record}}))
    command = [sys.executable, "-m", "trainer", str(file), "--run-dir", str(run)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return [seconds for _, seconds in step_times(attempt_folder(run, 1) / JOURNAL)]


def step_times(journal: Path) -> Iterator[tuple[float, float]]:
    """When a step was recorded and how long the steps up to it took on average, without the first ones."""
    for line in read_events(journal):
        if line.kind == "metrics" and (line.step or 0) > WARM_UP_STEPS and "step_seconds" in line.data["values"]:
            yield line.at, line.data["values"]["step_seconds"]


def under_the_stack(directory: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Step times of one run at the default cadence, by what was frozen meanwhile."""
    windows: list[tuple[str, float, float]] = []
    with stack(directory) as (process, endpoints):
        spec = {**SPEC, "name": "cost", "epochs": 100_000}
        headers = {"Authorization": f"Bearer {(directory / 'admin-token').read_text().strip()}"}
        answer = httpx.post(f"{endpoints['api']}/api/v1/jobs", json=spec, headers=headers, timeout=30)
        job = answer.raise_for_status().json()["id"]
        (runs,) = [path.parent for path in wait(lambda: list(directory.rglob(job)))]
        journal = attempt_folder(runs / job, 1) / JOURNAL
        wait(lambda: next(step_times(journal), None))
        for _ in range(rounds):
            for name, part in FROZEN.items():
                with frozen(process, part):
                    begin = time.time()
                    time.sleep(seconds)
                    windows.append((name, begin, time.time()))
                time.sleep(3)  # what was held up is made up for
        found = list(step_times(journal))
    return {
        name: [s for at, s in found for phase, begin, end in windows if phase == name and begin + 0.5 < at < end]
        for name in FROZEN
    }


@contextmanager
def stack(directory: Path) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """`barlow up` on free ports and its endpoints."""
    command = [str(Path(sys.executable).with_name("barlow")), "up", "--data", str(directory)]
    command += ["--port", "0", "--mlflow-port", "0", "--slots", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait(lambda: (directory / "endpoints.json").exists())
            yield psutil.Process(process.pid), json.loads((directory / "endpoints.json").read_text())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


@contextmanager
def frozen(stack: psutil.Process, part: str | None) -> Iterator[None]:
    """One part of the stack, with its children that are not ranks, does not move."""
    stopped: list[psutil.Process] = []
    if part is not None:
        for child in stack.children():
            if any(word.endswith(WORDS[part]) for word in child.cmdline()[:4]):
                below = child.children(recursive=True) if part != "worker" else []
                stopped += [child, *below]
        assert stopped, f"no process of {part} is found"
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            process.resume()


def wait(true: Any, seconds: float = 180.0) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:g} s in vain")
        time.sleep(0.2)
    return found


def show(what: str, seconds: Sequence[float], unit: float, name: str, note: str = "") -> None:
    """One line of a distribution."""
    ordered = sorted(seconds)
    at = {f"p{p}": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] * unit for p in (10, 50, 90, 99)}
    print(f"{what:36} n {len(ordered):6}  " + "  ".join(f"{k} {v:8.2f}" for k, v in at.items()) + f" {name}  {note}")


if __name__ == "__main__":
    main()

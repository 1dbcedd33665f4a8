"""`barlow demo`: the whole service from nothing to a table, over HTTP like anybody else."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from barlow_lab.specs import SpecError, load_spec_file
from service.api.schemas import ExperimentDetail, JobDetail
from service.client import own_stack, terminal
from service.client.api import Client
from service.client.browser import link
from service.client.connection import ApiError
from service.client.progress import watch
from service.client.render import ending, faults
from service.ledger.states import JobState
from service.local.agreement import compare
from service.local.folder import STATE, lock, make_private
from service.local.process import Child, end_leftovers
from service.local.servers import without_showing
from service.local.stack import ENDPOINTS

NEEDED_GAIN = 30.0
"""Points by which the trained backbone's kNN must beat the untrained one's."""

_RECORD_SECONDS = 60.0


def run(recipe: Path, directory: Path, *, keep: bool) -> int:
    """Run the experiment of `recipe` on a fresh stack in `directory`; returns the exit code.

    0: every job succeeded, both records agree, and the trained backbone's kNN is at least 30 points above the
    untrained one's. With `keep` the stack stays up afterwards.
    """
    console = terminal.console()
    try:
        body = load_spec_file(recipe)
        _make_fresh(directory, console.print)
        make_private(directory, console.print)
        with _running_stack(console, directory, keep=keep) as endpoints, _client(endpoints, directory) as client:
            experiment = client.submit_experiment(body)
            jobs = watch(client, [job.id for job in experiment.jobs], console)
            for job in jobs:
                if job.state != JobState.SUCCEEDED:
                    ending(console, job)
            well = judge(console, {job.name: job for job in jobs})
            well = well and _agree(console, client, jobs, endpoints, token=own_stack.read(directory))
            _say_where(
                console,
                client,
                client.experiment(experiment.id),
                endpoints,
                f"barlow open --data {directory}",
                keep=keep,
            )
    except SpecError as error:
        console.print(f"{recipe}: {faults(error)}", style="red", markup=False, soft_wrap=True)
        return 1
    except (ApiError, OSError, RuntimeError, ValueError) as error:
        console.print(f"Error: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    return 0 if well else 1


def judge(console: Console, jobs: dict[str, JobDetail]) -> bool:
    """Print the table; whether training was worth it."""
    table = Table("features", "kNN top-1", "linear top-1", title="8 texture families, test split, percent")
    for words, suffix in (("raw pixels", "-pixels"), ("untrained tiny", "-untrained"), ("Barlow Twins tiny", "")):
        knn, linear = (_top1(jobs.get(f"{kind}{suffix}")) for kind in ("knn", "linear"))
        table.add_row(words, *("-" if value is None else f"{value:.1f}" for value in (knn, linear)))
    console.print(table)
    if any(job.state != JobState.SUCCEEDED for job in jobs.values()):
        return False
    trained, untrained = _top1(jobs.get("knn")), _top1(jobs.get("knn-untrained"))
    if trained is None or untrained is None:
        console.print("the recipe has no jobs `knn` and `knn-untrained` to compare", style="red")
        return False
    if trained - untrained < NEEDED_GAIN:
        console.print(
            f"kNN of the trained backbone is {trained - untrained:.1f} points above the untrained one; "
            f"at least {NEEDED_GAIN:g} are expected",
            style="red",
        )
        return False
    return True


def _make_fresh(directory: Path, report: Callable[[str], None]) -> None:
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not (directory / STATE).exists():
        raise ValueError(f"{directory} holds something else than a former demo; choose another --data")
    with lock(directory):
        end_leftovers(directory, report, grace_seconds=20)
        shutil.rmtree(directory)


@contextlib.contextmanager
def _running_stack(console: Console, directory: Path, *, keep: bool) -> Iterator[dict[str, str]]:
    """A `barlow up` of its own, as a user would start it; what it says is shown until it answers."""
    command = [sys.executable, "-P", "-m", "service.command", "up", "--data", str(directory)]
    up = Child(
        "barlow up",
        [*command, "--port", "0", "--mlflow-port", "0"],
        log=directory / "logs" / "up.log",
        ours=True,
        grace_seconds=180,
        dies_with_parent=not keep,
    )
    up.start()
    finished = False
    try:
        with up.log.open(encoding="utf-8", errors="backslashreplace") as said:

            def answers() -> bool:
                console.print(said.read(), end="", markup=False)
                return (directory / ENDPOINTS).exists()

            up.wait_ready(answers, seconds=300)
        yield json.loads((directory / ENDPOINTS).read_text("utf-8"))
        finished = True
    finally:
        if keep and finished:
            console.print(f"The stack stays up; stop it with: kill {up.pid}")
        else:
            console.print("stopping the stack")
            up.stop()


def _client(endpoints: dict[str, str], directory: Path) -> Client:
    # The token of this stack, whatever lab the shell around has one of.
    return Client(endpoints["api"], own_stack.read(directory), same_account=True)


def _top1(job: JobDetail | None) -> float | None:
    if job is None or job.result is None:
        return None
    return float(job.result["scores"]["top1"]["last"])


def _agree(
    console: Console, client: Client, jobs: Sequence[JobDetail], endpoints: dict[str, str], *, token: str | None
) -> bool:
    """Whether Postgres and MLflow hold the same points, once both have everything."""
    deadline = time.monotonic() + _RECORD_SECONDS
    while any(client.job(job.id).recording.mlflow != "complete" for job in jobs):
        if time.monotonic() > deadline:
            console.print(f"MLflow has not got everything within {_RECORD_SECONDS:g} s", style="red")
            return False
        time.sleep(0.5)
    database = without_showing(endpoints["database"])
    agreement = compare(database, endpoints["mlflow"], jobs[0].experiment, token=token, same_account=True)
    for fault in agreement.faults:
        console.print(fault, style="red", markup=False, soft_wrap=True)
    if not agreement.faults:
        console.print(f"Postgres and MLflow agree on all {agreement.total:,} metric points")
    return not agreement.faults


def _say_where(
    console: Console, client: Client, experiment: ExperimentDetail, endpoints: dict[str, str], again: str, *, keep: bool
) -> None:
    if keep:
        page = experiment.mlflow or endpoints["mlflow"]
        console.print(f"MLflow    {link(client, page, experiment=experiment.name if experiment.mlflow else None)}")
        console.print(f"          (good once, for ten minutes; `{again}` prints another one)")
        console.print(f"API       {endpoints['api']}/docs")
        console.print(f"database  {endpoints['database']}")
    else:
        console.print("KEEP=1 leaves the stack up, to look at the runs and their heatmaps there")

"""The commands that talk to the API; service.command makes the `barlow` command of them."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
import yaml
from typer.core import TyperGroup

from barlow_lab.commands import is_of_output, missing_folder
from barlow_lab.specs import Spec, SpecError, digest, load_spec_file, parse_experiment, parse_spec
from barlow_lab.specs.image_size import sized_offline
from service.client import browser, progress, render, render_comparison
from service.client.address import DATA, connect
from service.client.api import Client
from service.client.changes import changed
from service.client.connection import ApiError
from service.client.page_file import refuse_other_file, write_page
from service.client.terminal import console, say, say_error
from service.ledger.states import JobState

_HELP = """
Pretrain image backbones with Barlow Twins and judge them.

\b
  barlow up                                    run the whole service on this machine
  barlow spec recipes/digits.yaml              is this spec valid, and what are its defaults?
  barlow submit recipes/digits.yaml --watch    submit it and look on
  barlow jobs --state running                  what is going on?
  barlow logs digits-resnet18 -f               what does it write?
  barlow open digits-resnet18                  its run in MLflow, in a browser
  barlow pause ID                              its slots for something else; `barlow resume ID` goes on
  barlow retry ID --watch                      it failed: once more, from its newest checkpoint
  barlow compare ID ID                         what made the difference?
  barlow compare --experiment NAME             what was measured of whose backbone?
  barlow compare --experiment NAME --plot FILE.html    the same to look at, with curves and matrices
  barlow recipes                               published runs, ready to submit

ID is a job's id, its beginning or its end, its NAME, or EXPERIMENT/NAME. Commands talk to the stack that `barlow up`
runs in this directory, or to the API at --url or BARLOW_URL.
"""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Refusals are messages with exit code 1, not tracebacks."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if is_of_output(error):
                raise
            say_error(f"Error: {missing_folder() or error}")
            raise typer.Exit(1) from None
        except (ApiError, SpecError) as error:
            said = render.faults(error) if isinstance(error, SpecError) else str(error)
            say_error(f"Error: {said}")
            raise typer.Exit(1) from None
        except UnicodeEncodeError as error:
            said = f"a name was given in another encoding than that of this locale ({error.encoding})"
            typer.secho(f"Error: {said}; run it again with LC_ALL=C.UTF-8", err=True, fg=typer.colors.RED)
            raise typer.Exit(1) from None


app = typer.Typer(cls=_Commands, help=_HELP, no_args_is_help=True, rich_markup_mode=None, add_completion=False)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"barlow-lab {version('barlow-lab')}")
        raise typer.Exit


@app.callback()
def _every_command(
    _: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show it and exit")
    ] = False,
) -> None:
    pass


Url = Annotated[Optional[str], typer.Option(envvar="BARLOW_URL", help="Address of the API")]  # noqa: UP045 - typer
Data = Annotated[Path, typer.Option(help="Directory of `barlow up`, for its address")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Id, beginning or end of it, NAME, or EXPERIMENT/NAME")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help="One or more jobs, as for `show`")]
Changes = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="In place of what the file says, as optimizer.learning_rate=0.3; of an experiment's pretrainings, or "
        "jobs.NAME.PATH; may be repeated",
    ),
]
SpecFile = Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON; with `jobs:` in it, an experiment")]


@app.command()
def submit(
    file: SpecFile,
    watch: Annotated[bool, typer.Option("--watch", help="Look on until every job has ended")] = False,
    experiment: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Experiment of the job; of an experiment file: another name for it"),
    ] = None,
    change: Changes = None,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """Submit a job, or all jobs of an experiment.

    Example: barlow submit recipes/demo.yaml --experiment my-demo --set seeds=3 --watch
    """
    body = changed(load_spec_file(file, from_shell=True), change or [])
    with connect(url, data) as client:
        if isinstance(body, dict) and "jobs" in body:
            made = client.submit_experiment({**body, "name": experiment} if experiment else body)
            ids = [job.id for job in made.jobs]
            render.submitted(console(), made.name, made.jobs)
        else:
            job = client.submit_job(body, experiment=experiment or "default")
            ids = [job.id]
            render.submitted(console(), job.experiment, [job])
        if watch:
            _watch(client, ids)


@app.command()
def jobs(
    state: Annotated[Optional[list[JobState]], typer.Option(help="Only these states")] = None,  # noqa: UP045
    kind: Annotated[Optional[list[str]], typer.Option(help="Only these kinds")] = None,  # noqa: UP045
    experiment: Annotated[Optional[str], typer.Option(help="Only of this experiment")] = None,  # noqa: UP045
    label: Annotated[Optional[list[str]], typer.Option(help="Only with this KEY=VALUE")] = None,  # noqa: UP045
    mine: Annotated[bool, typer.Option("--mine", help="Only those of the user whose token this is")] = False,
    user: Annotated[Optional[str], typer.Option(help="Only those of this user")] = None,  # noqa: UP045
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many")] = 50,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """List jobs, newest first.

    Example: barlow jobs --experiment demo --state running --state queued
    """
    if mine and user is not None:
        raise typer.BadParameter("--mine is --user of your own; give one of them")
    with connect(url, data) as client:
        page = client.jobs(
            page_size=limit,
            state=[item.value for item in state] if state else None,
            kind=kind or None,
            experiment=experiment,
            label=label or None,
            user=client.whoami().user if mine else user,
        )
    render.jobs(console(), page.items, more=page.next_page_token is not None)


@app.command()
def show(job: JobId, url: Url = None, data: Data = DATA) -> None:
    """Show a job: its state and why, its progress, its newest metrics, its result or its error."""
    with connect(url, data) as client:
        found = client.job(client.find_job(job))
        page = found.links.mlflow
        mlflow = None if page is None else browser.link(client, page, job=found.id)
        render.job(console(), found, client.url, mlflow)


@app.command()
def watch(job: JobIds, url: Url = None, data: Data = DATA) -> None:
    """Look on until the jobs have ended, or wait for you to resume one. Exit code 1 unless all have succeeded."""
    with connect(url, data) as client:
        _watch(client, [client.find_job(text) for text in job])


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended")] = False,
    attempt: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Only this attempt; left out: all, one after another"),
    ] = None,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """Print what the trainer has written, each line with its rank."""
    with connect(url, data) as client:
        for piece in client.log(client.find_job(job), follow=follow, attempt=attempt):
            say(piece, nl=False)


@app.command()
def cancel(job: JobIds, url: Url = None, data: Data = DATA) -> None:
    """Cancel jobs. A running one writes a checkpoint first; one that has ended stays as it is."""
    with connect(url, data) as client:
        for job_id in [client.find_job(text) for text in job]:
            render.asked(console(), client.cancel(job_id))


@app.command()
def pause(job: JobIds, url: Url = None, data: Data = DATA) -> None:
    """Pause jobs: their slots are free for others until `barlow resume`.

    A running one writes a checkpoint first, and goes on from it later: the same job, the same MLflow run. An evaluation
    of frozen features (knn, svm, linear on cached ones) has none and starts over.
    """
    with connect(url, data) as client:
        for job_id in [client.find_job(text) for text in job]:
            render.asked(console(), client.pause(job_id))


@app.command()
def resume(job: JobIds, url: Url = None, data: Data = DATA) -> None:
    """Have paused jobs go on from their newest checkpoint: they are queued again.

    A pause that is still under way is taken back.
    """
    with connect(url, data) as client:
        for job_id in [client.find_job(text) for text in job]:
            render.asked(console(), client.resume(job_id))


@app.command()
def retry(
    job: JobIds,
    watch: Annotated[bool, typer.Option("--watch", help="Look on until the new jobs have ended")] = False,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """Make a new job in place of each that failed or was cancelled: the same spec, called NAME-retry1.

    It starts from the newest valid checkpoint of the old one, which stays as it is. What the old one waited for is
    not run again; if that failed too, retry it first: the new job waits for its retry.

    Example: barlow retry digits-resnet18 --watch
    """
    with connect(url, data) as client:
        made = [client.retry(job_id) for job_id in [client.find_job(text) for text in job]]
        for new in made:
            render.submitted(console(), new.experiment, [new])
        if watch:
            _watch(client, [new.id for new in made])


@app.command(name="rebuild-mlflow")
def rebuild_mlflow(
    job: Annotated[Optional[list[str]], typer.Argument(metavar="[ID...]", help="Jobs, as for `show`")] = None,  # noqa: UP045
    every: Annotated[bool, typer.Option("--all", help="Every job that was ever recorded")] = False,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """Have the MLflow runs of jobs deleted and made again: from Postgres and the run directories, nothing is lost.

    For an MLflow that was emptied (--all), or a run that somebody edited. A worker does it; `barlow show` says when all
    of it is recorded.
    """
    if every == bool(job):
        raise typer.BadParameter("name one or more jobs, or give --all", param_hint="ID")
    with connect(url, data) as client:
        for job_id in [client.find_job(text) for text in job or ()]:
            say(f"{client.rebuild_mlflow(job_id).name}  its MLflow run is made again")
        for found in client.every_job() if every else ():
            try:
                client.rebuild_mlflow(found.id)
            except ApiError as error:
                if error.problem is None or not error.problem.type.endswith("/nothing-recorded"):
                    raise
                said = "was never recorded"
            else:
                said = "its MLflow run is made again"
            say(f"{found.experiment}/{found.name}  {said}")


@app.command()
def spec(file: SpecFile, change: Changes = None) -> None:
    """Validate a spec without a server: print it with every default written out, and its digest.

    Of an experiment, every job that it becomes by its seeds, grid and zip.

    Exit code 1 when it has faults; all of them are named. An image size that is left out is settled at submit: here it
    is known where the source job is in the same file, or the data set is built in.
    """
    body = changed(load_spec_file(file, from_shell=True), change or [])
    whole = isinstance(body, dict) and "jobs" in body
    specs: Mapping[str, Spec] = parse_experiment(body).jobs if whole else {"": parse_spec(body)}
    if whole and len(specs) > len(body["jobs"]):
        say(f"# {len(specs):,} jobs, of {len(body['jobs']):,} that vary")
    for name, spec in specs.items():
        resolved, settled = sized_offline(spec, specs)
        if whole:
            say(f"---\n# job: {name}")
        say(f"# digest: {digest(resolved)}")
        if not settled:
            said = "is left out, and settled at submit: the source job's, or the data set's; the digest goes by it"
            say(f"# {spec.image_size_field} {said}")
        say(yaml.safe_dump(resolved.resolved(), sort_keys=False), nl=False)


@app.command()
def compare(
    job: Annotated[Optional[list[str]], typer.Argument(metavar="ID...", help="Two jobs or more, as for `show`")] = None,  # noqa: UP045
    experiment: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="In place of jobs: line up every evaluation of this experiment, by name or id"),
    ] = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE.html", help="Write a page with figures to this file, and print no tables"),
    ] = None,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """Compare jobs: what was measured beside what was published, and where their specs differ.

    Of an experiment: what was measured of whose backbone, a line a score and a column a backbone.

    With --plot a page for a browser: metrics over steps with their spread over seeds, spectra and correlation matrices
    at common steps, scores with whiskers. It is one file of some megabytes that needs neither network nor service.

    Example: barlow compare --experiment demo --plot demo.html
    """
    if bool(job) == (experiment is not None) or (job and len(job) < 2):
        raise typer.BadParameter("it takes two jobs or more, or --experiment NAME")
    if plot is not None:
        refuse_other_file(plot)
    with connect(url, data) as client:
        if plot is not None:
            page = client.compare_page([client.find_job(text) for text in job or []], experiment)
            write_page(plot, page)
            say(f"{plot}: {len(page) / 1e6:.1f} MB, for any browser")
        elif experiment is not None:
            render_comparison.experiment(console(), client.compare_experiment(experiment))
        else:
            render_comparison.jobs(console(), client.compare([client.find_job(text) for text in job or []]))


@app.command()
def recipes(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="NAME", help="Print this one, to be redirected to a file"),
    ] = None,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """List the spec files that the service has ready, with what was published of each; or print one.

    Example: barlow recipes linear-imagenet > mine.yaml
    """
    with connect(url, data) as client:
        if name is None:
            render_comparison.recipes(console(), client.recipes())
        else:
            text = client.recipe(name)
            if sys.stdout.isatty():
                say(text, nl=False)
            else:  # a file to be submitted, as it is
                typer.echo(text, nl=False)


@app.command()
def nodes(url: Url = None, data: Data = DATA) -> None:
    """List the hosts that run jobs, and what their slots do."""
    with connect(url, data) as client:
        render.nodes(console(), client.nodes())


@app.command()
def release(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of a host, as `barlow nodes` shows it")],
    slot: Annotated[int, typer.Argument(metavar="SLOT", min=0, help="Number of its quarantined slot")],
    url: Url = None,
    data: Data = DATA,
) -> None:
    """Free a quarantined slot, on your word that nothing of the lost job runs there any more.

    A host frees its slots by itself once it finds them empty. Look there first (nvidia-smi, ps): two jobs on one GPU
    ruin both.

    Example: barlow release gpu-1 3
    """
    with connect(url, data) as client:
        say(f"slot {slot} of {node}: {client.release_slot(node, slot).words}")


@app.command()
def datasets(url: Url = None, data: Data = DATA) -> None:
    """List the data sets that a spec may name."""
    with connect(url, data) as client:
        render.data_sets(console(), client.data_sets())


def _watch(client: Client, ids: Sequence[uuid.UUID]) -> None:
    screen = console()
    seen = progress.watch(client, ids, screen)
    for job in seen:
        render.ending(screen, job)
    if any(job.state != JobState.SUCCEEDED for job in seen):
        raise typer.Exit(1)

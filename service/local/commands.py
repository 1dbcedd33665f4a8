"""`barlow up` and `barlow demo`. The servers' packages are imported when a command runs: they are an extra."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from barlow_lab.commands import missing_folder
from service.client.terminal import say, say_error


def register(app: typer.Typer) -> None:
    """Add the commands of this room to the `barlow` command."""
    app.command()(up)
    app.command()(demo)


def up(
    data: Annotated[Path, typer.Option(help="Directory of the stack; made if it is not there")] = Path(".barlow"),
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of the API; left out: the one of before, at first 8000; 0 picks a free one then",
            min=0,
            max=65535,
        ),
    ] = None,
    mlflow_port: Annotated[
        int | None,
        typer.Option(
            help="Port of MLflow; left out: the one of before, at first 5000; 0 picks a free one then",
            min=0,
            max=65535,
        ),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(help="CPU slots of the worker; left out: one per two cores", min=1)
    ] = None,
    datasets: Annotated[
        Path | None,
        typer.Option(
            help="A datasets.yaml that says where your data sets are (docs/data-sets.md); left out: "
            "BARLOW_DATASETS_FILE, or the datasets.yaml in the directory of the stack or in its folder data",
            metavar="FILE",
        ),
    ] = None,
    backbones: Annotated[
        Path | None,
        typer.Option(
            help="Folder of weights that evaluations name (docs/backbones.md); left out: BARLOW_BACKBONES_DIR",
            metavar="DIR",
        ),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Ask for no token: every account of this machine is an admin then")
    ] = False,
) -> None:
    """Run the whole service on this machine: PostgreSQL, Redis, MLflow, API, scheduler and one worker.

    The API asks for a token: the one in DATA/admin-token, made once and readable by you alone, which `barlow` finds by
    itself; or BARLOW_ADMIN_TOKEN, where that is set.

    Jobs train on digits, textures and scenes, which are built in, and on what a datasets.yaml names; `barlow datasets`
    shows what is in it. Sets that are added to that file count from the next `barlow up` on, files in the folder of
    weights at once.
    """
    try:
        from service.local.stack import ENDPOINTS, Stack
    except ImportError as error:
        raise _missing_extra(error) from error
    if word := missing_folder():
        raise FileNotFoundError(word)
    _stop_on_signals()
    stack = Stack(
        data,
        api_port=port,
        mlflow_port=mlflow_port,
        slots=slots,
        guarded=not no_token,
        data_sets=datasets,
        backbones=backbones,
        report=_line,
    )
    failed = False
    try:
        stack.start()
        _line(f"addresses are in {stack.directory / ENDPOINTS}")
        _line("Ctrl-C stops it; the next `barlow up` goes on where it was")
        while True:
            stack.tend()
            time.sleep(0.5)
    except KeyboardInterrupt:
        _line("stopping; running jobs write a checkpoint first")
    except (ConnectionError, RuntimeError, ValueError) as error:
        failed = True
        say_error(f"Error: {error}")
    finally:
        try:
            stack.stop()
        except KeyboardInterrupt:
            _line("stopping at once")
            stack.kill()
    if failed:
        raise typer.Exit(1)


def demo(
    recipe: Annotated[Path, typer.Argument(help="Experiment to run")] = Path("recipes/demo.yaml"),
    data: Annotated[Path, typer.Option(help="Directory of the stack; a former demo in it is removed")] = Path(
        "demo-data"
    ),
    keep: Annotated[bool, typer.Option("--keep", envvar="KEEP", help="Leave the stack running")] = False,
) -> None:
    """Pretrain a small backbone, judge it against untrained and raw pixels, and show the table."""
    try:
        from service.local.demo import run
    except ImportError as error:
        raise _missing_extra(error) from error
    if word := missing_folder():
        raise FileNotFoundError(word)
    _stop_on_signals()
    raise typer.Exit(run(recipe, data, keep=keep))


def _line(text: str) -> None:
    """That nobody takes our lines any more stops no stack, and keeps none from being stopped."""
    with contextlib.suppress(OSError):
        say(text)


def _stop_on_signals() -> None:
    """A stop request ends the stack in order. A shell starts `barlow up &` with SIGINT ignored, nohup with SIGHUP."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _missing_extra(error: ImportError) -> typer.BadParameter:
    return typer.BadParameter(f"{error.name} is missing: the local stack is an extra, pip install 'barlow-lab[local]'")

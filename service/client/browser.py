"""A person's way to MLflow: links that let a browser in, and `barlow open`."""

from __future__ import annotations

import html
import os
import sys
import uuid
import webbrowser
from pathlib import Path
from typing import Annotated, Optional

import httpx
import typer

from service.api.browser_views import Entry
from service.client import token_store
from service.client.address import DATA, connect
from service.client.api import Client
from service.client.connection import ApiError
from service.client.terminal import say
from service.loopback import require_ours

Url = Annotated[Optional[str], typer.Option(envvar="BARLOW_URL", help="Address of the API")]  # noqa: UP045 - typer
Data = Annotated[Path, typer.Option(help="Directory of `barlow up`, for its address")]


def register(app: typer.Typer) -> None:
    """Add the command of this room to the `barlow` command."""
    app.command(name="open")(open_page)


def open_page(
    job: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[ID]", help="To the run of this job, as for `show`; left out: to MLflow's first page"),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the link in a browser, where there is a display")] = True,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """Print a link that lets a browser into MLflow, and open it. It is good once, for ten minutes.

    Example: barlow open digits-resnet18
    """
    with connect(url, data) as client:
        entry = _entry(client, job=None if job is None else client.find_job(job))
    say(entry.url)
    if entry.expires_at is not None:
        typer.echo(
            f"good once, until {entry.expires_at.astimezone():%H:%M}; the browser is in for 12 hours then", err=True
        )
    if browser and has_display():
        webbrowser.open(_private_page(entry).as_uri())


def has_display() -> bool:
    """Whether a browser that is started here would be seen."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def link(client: Client, page: str, *, job: uuid.UUID | None = None, experiment: str | None = None) -> str:
    """A link that lets a browser in and leads to `page`, which is a job's or an experiment's in MLflow."""
    try:
        return _entry(client, job=job, experiment=experiment).url
    except (ApiError, ConnectionError):  # an API of before, or one that is too busy: its page is where it was
        return page


def _entry(client: Client, *, job: uuid.UUID | None = None, experiment: str | None = None) -> Entry:
    """A link that lets a browser in, which cannot ask whose the server is that it leads to.

    Raises:
        ConnectionError: at its port listens no MLflow of the stack that the client is of.
    """
    entry = client.entry(job=job, experiment=experiment)
    if client.same_account:
        page = httpx.URL(entry.url)
        require_ours(page.host, page.port or 80)
    return entry


def _private_page(entry: Entry) -> Path:
    """A page that only its owner can read and that leads on to the link.

    The command line of a browser is seen by every account of the machine, and whoever was faster would be in.
    """
    address = html.escape(entry.url)
    page = token_store.file().with_name("open.html")
    token_store.write_private(page, f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">')
    return page

"""`barlow login`, `logout` and `token`: the user's own token, and an admin's tokens for others."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import httpx
import typer

from service.api.token_views import TokenView, Whoami
from service.callers import Role
from service.client import token_store
from service.client.address import DATA, address, connect, has_port_of_own_stack
from service.client.api import Client
from service.client.connection import ApiError, Unauthorized
from service.client.main import Data, Url
from service.client.terminal import say
from service.loopback import is_loopback

_tokens = typer.Typer(
    help="Make, list and revoke tokens for others: for admins.", no_args_is_help=True, rich_markup_mode=None
)

TokenName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token; stands in the events of jobs")]


def register(app: typer.Typer) -> None:
    """Add the commands of this room to the `barlow` command."""
    app.command()(login)
    app.command()(logout)
    app.command()(audit)
    app.add_typer(_tokens, name="token")


def login(
    token_file: Annotated[
        Optional[Path],  # noqa: UP045 - typer
        typer.Option(help="File that holds the token; left out: you are asked, or it is read from a pipe"),
    ] = None,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """Check a token and keep it for the API at this address; every other command sends it from then on.

    It lies in barlow/tokens.json below XDG_CONFIG_HOME, or ~/.config, and only you can read it. BARLOW_TOKEN in the
    environment wins over it.

    Example: barlow login --url https://barlow.example.org
    """
    found = address(url, data)
    if _asks_for_none(found):
        typer.echo(f"{found} asks for no token; nothing is stored")
        return
    if _is_readable_on_the_way(found):
        typer.secho(
            f"Warning: {found} is plain http to another machine, and whoever is on the way can read the token; "
            "put TLS in front of the API, or go through an SSH tunnel",
            err=True,
            fg=typer.colors.YELLOW,
        )
    token = _read_token(token_file)
    who = _check(found, token, same_account=has_port_of_own_stack(found, data))
    where = token_store.store(found, token)
    say(f"logged in at {found} as {who.name} ({who.role}); the token is in {where}")
    if os.environ.get(token_store.VARIABLE):
        typer.echo(f"{token_store.VARIABLE} is set and wins over it; unset it to use this one", err=True)


def logout(url: Url = None, data: Data = DATA) -> None:
    """Remove the token that is kept for this address. It stays valid: an admin revokes it."""
    found = address(url, data)
    there = token_store.forget(found)
    typer.echo(f"the token for {found} is removed" if there else f"there is no token for {found}")


def audit(
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many")] = 50,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """List what was done with tokens and slots and what was deleted, newest first: for admins."""
    with connect(url, data) as client:
        page = client.audit(page_size=limit)
        for act in page.items:
            by = act.actor if act.actor == act.user else f"{act.actor} of {act.user}"
            detail = "".join(f"  {key} {value}" for key, value in sorted(act.detail.items()))
            where = f" from {act.address}" if act.address else ""
            say(f"{act.at:%Y-%m-%d %H:%M:%S}  {act.action}  {act.subject}  by {by}{where}{detail}")
        if page.next_page_token is not None:
            typer.echo("there are more; raise --limit")


@_tokens.command()
def create(
    name: TokenName,
    role: Annotated[Role, typer.Option(help="reader looks; submitter also runs jobs; admin also makes tokens")],
    user: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Whose it is: jobs belong to the user, whichever token they came by; left out: NAME"),
    ] = None,
    expires: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="TIME", help="How long it is valid: 12h, 90d or 8w (m: minutes); left out: until it is revoked"
        ),
    ] = None,
    url: Url = None,
    data: Data = DATA,
) -> None:
    """Make a token and print its secret, this once. Only a hash of it is kept.

    A user may have several, one a computer or one after another: the jobs of one are in the hands of all.

    Example: barlow token create alice-laptop --user alice --role submitter --expires 90d
    """
    with connect(url, data) as client:
        made = client.create_token(name, role, user=user, expires_in=expires)
        # The secret alone on stdout, so that it can go straight into a file.
        typer.echo(made.secret)
        whose = f"{made.name} ({made.role} of user {made.user}, {_until(made)})"
        typer.echo(f"{whose} is used by: barlow login --url {client.url}", err=True)


@_tokens.command(name="list")
def list_tokens(url: Url = None, data: Data = DATA) -> None:
    """List the tokens, revoked ones too, without their secrets."""
    with connect(url, data) as client:
        for token in client.tokens().items:
            made = f"made {token.created_at:%Y-%m-%d %H:%M} by {token.created_by}"
            ended = f"revoked {token.revoked_at:%Y-%m-%d %H:%M}" if token.revoked_at else _until(token)
            say(f"{token.name}  {token.user}  {token.role}  {made}  {ended}")


@_tokens.command()
def revoke(name: TokenName, url: Url = None, data: Data = DATA) -> None:
    """Revoke a token: its next request is refused. Its jobs go on."""
    with connect(url, data) as client:
        say(f"{client.revoke_token(name).name}  revoked")


def _until(token: TokenView) -> str:
    return f"until {token.expires_at:%Y-%m-%d %H:%M} UTC" if token.expires_at else "without an end"


def _asks_for_none(url: str) -> bool:
    with Client(url) as client:
        try:
            client.whoami()
        except Unauthorized:
            return False
    return True


def _is_readable_on_the_way(url: str) -> bool:
    parsed = httpx.URL(token_store.canonical(url))
    return parsed.scheme == "http" and not is_loopback(parsed.host)


def _read_token(file: Path | None) -> str:
    if file is not None:
        token = file.read_text("utf-8")
    elif _is_a_terminal():
        token = typer.prompt("Token", hide_input=True)
    else:
        token = sys.stdin.readline()
    if not token.strip():
        raise ApiError("there is no token to read; give it when asked, by --token-file FILE, or through a pipe")
    return token.strip()


def _is_a_terminal() -> bool:
    return sys.stdin.isatty()


def _check(url: str, token: str, *, same_account: bool) -> Whoami:
    with Client(url, token, same_account=same_account) as client:
        try:
            return client.whoami()
        except Unauthorized as error:
            why = error.problem.detail if error.problem else str(error)
            raise ApiError(f"{url} does not take this token: {why}; ask an admin for one") from None

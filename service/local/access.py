"""Who may use a local stack: the admin token that its API is started with, and how people come by it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr, ValidationError

from service.client import own_stack
from service.client.address import DATA
from service.client.connection import ApiError
from service.settings import Settings, in_words

VARIABLE = "BARLOW_ADMIN_TOKEN"


def admin_token(directory: Path, *, guarded: bool) -> Mapping[str, str]:
    """The variable that tells the API its admin token, for this one process; empty where nobody is to need a token.

    It is BARLOW_ADMIN_TOKEN, which is then written nowhere, or else the token of `directory`.

    Raises:
        ValueError: BARLOW_ADMIN_TOKEN is no good, or contradicts `guarded`; the token of `directory` is not a secret.
    """
    # Any address will do: it is asked for the token alone, from wherever settings may come.
    try:
        given = Settings(database_url=SecretStr("postgresql://127.0.0.1/barlow")).admin_token
    except ValidationError as error:
        raise ValueError(in_words(error)) from None
    if not guarded:
        if given is not None:
            raise ValueError(f"--no-token says that nobody needs a token, and {VARIABLE} is one: unset it")
        return {}
    if given is not None:
        return {VARIABLE: given.get_secret_value()}
    try:
        return {VARIABLE: own_stack.make(directory)}
    except ApiError as error:
        raise ValueError(str(error)) from None


def how_to_use(directory: Path, api: str, token: Mapping[str, str]) -> list[str]:
    """How to ask the stack on `directory` for something, for people; no secret stands in it."""
    if not token:
        return [f"BARLOW_URL={api} uses it; no token is asked for: EVERY ACCOUNT OF THIS MACHINE IS AN ADMIN of it"]
    if token[VARIABLE] != own_stack.read(directory):
        return [f"its admin token is the one of {VARIABLE}, kept nowhere: `barlow login --url {api}`, or BARLOW_TOKEN"]
    folder = "" if directory == DATA.resolve() else f" --data {shlex.quote(str(directory))}"
    file = shlex.quote(str(directory / own_stack.FILE))
    return [
        f"your account uses it by `barlow jobs{folder}` and the like, other accounts by tokens that you make",
        # Not -H "...$(cat FILE)": everybody on the machine can read the arguments of a command.
        f"without the command: sed 's/.*/header = \"Authorization: Bearer &\"/' {file} | curl -sK - {api}/api/v1/jobs",
    ]

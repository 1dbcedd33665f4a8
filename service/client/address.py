"""Where the API is: as it was told, or as `barlow up` wrote it down; and the token that is for it."""

from __future__ import annotations

import json
from pathlib import Path

from service.client import token_store
from service.client.api import Client, Unreachable

DATA = Path(".barlow")


def connect(url: str | None, data: Path) -> Client:
    """A client of the API at `url`, or else of the stack whose `barlow up` runs on the directory `data`.

    Raises:
        Unreachable: there is no address.
        ApiError: others can read the stored tokens.
    """
    found = address(url, data)
    return Client(found, token_store.token_for(found, named=url is not None))


def address(url: str | None, data: Path) -> str:
    """`url`, or else the address of the stack whose `barlow up` runs on the directory `data`.

    Raises:
        Unreachable: there is none.
    """
    return url or _written(data / "endpoints.json")


def _written(file: Path) -> str:
    try:
        return str(json.loads(file.read_text())["api"])
    except FileNotFoundError:
        raise Unreachable(
            f"no API address: there is no {file}. Start a stack here with `barlow up`, name its directory with "
            "--data DIR, or give an address by --url or BARLOW_URL"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"{file} is not the addresses of a stack ({error!r}); start `barlow up` again") from None

"""The `barlow` command: the commands of the client, and those of the local stack."""

from __future__ import annotations

from service.client import tokens
from service.client.main import app
from service.local.commands import register

tokens.register(app)
register(app)


def main() -> None:
    """Entry point of the `barlow` command."""
    app(prog_name="barlow")


if __name__ == "__main__":
    main()

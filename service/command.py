"""The `barlow` command: the commands of the client, and those of the local stack."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts it first: no queue.py or random.py of whatever folder this is started in
# An empty part of PYTHONPATH, as shells make with $PYTHONPATH:/opt/x, stands for that folder, too. Ours may be there.
if "" in (os.environ.get("PYTHONPATH") or "-").split(os.pathsep) and not __file__.startswith(os.getcwd() + os.sep):
    sys.path[:] = [folder for folder in sys.path if folder != os.getcwd()]

from barlow_lab.commands import run_command
from service import shell_environment
from service.client import browser, tokens
from service.client.main import app
from service.local.commands import register

tokens.register(app)
browser.register(app)
register(app)


def main() -> None:
    """Entry point of the `barlow` command."""
    shell_environment.disown_all()
    run_command("barlow", lambda: app(prog_name="barlow"))


if __name__ == "__main__":
    main()

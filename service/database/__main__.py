"""`python -m service.database provision | upgrade | current`: make the roles and databases of a PostgreSQL server
(BARLOW_SUPERUSER_DATABASE_URL), migrate the run database, or say where it stands."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts it first: no queue.py or random.py of whatever folder this is started in

import argparse

import psycopg

from barlow_lab.commands import run_command
from service import shell_environment
from service.database.engine import make_engine
from service.database.migrate import current_and_head, upgrade
from service.database.provisioning import provision
from service.settings import read_settings


def main() -> None:
    """Exit code 1 of `current` means that migrations are pending."""
    parser = argparse.ArgumentParser(prog="python -m service.database", description=__doc__)
    parser.add_argument("command", choices=["provision", "upgrade", "current"])
    command = parser.parse_args().command
    shell_environment.disown_all()
    settings = read_settings()
    try:
        if command == "provision":
            provision(settings)
            return
        if command == "upgrade":
            upgrade(settings)
    except (ValueError, psycopg.Error) as error:
        raise SystemExit(f"{command}: {error}") from None
    engine = make_engine(settings)
    current, head = current_and_head(engine)
    engine.dispose()
    print(f"database at {current or 'nothing'}, code needs {head}")
    raise SystemExit(0 if current == head else 1)


if __name__ == "__main__":
    run_command("python -m service.database", main)

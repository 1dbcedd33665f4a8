"""`python -m service.database upgrade | current`: migrate the run database, or say where it stands."""

from __future__ import annotations

import argparse

from service.database.engine import make_engine
from service.database.migrate import current_and_head, upgrade
from service.settings import Settings


def main() -> None:
    """Exit code 1 of `current` means that migrations are pending."""
    parser = argparse.ArgumentParser(prog="python -m service.database", description=__doc__)
    parser.add_argument("command", choices=["upgrade", "current"])
    command = parser.parse_args().command
    settings = Settings()
    if command == "upgrade":
        upgrade(settings)
    engine = make_engine(settings)
    current, head = current_and_head(engine)
    engine.dispose()
    print(f"database at {current or 'nothing'}, code needs {head}")
    raise SystemExit(0 if current == head else 1)


if __name__ == "__main__":
    main()

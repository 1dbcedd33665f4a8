"""python -m worker.health: does the run database see the worker of this host? Exit status 0 if it does.

For a container's health check. A worker that cannot reach the database is not healthy, though its trainers may be fine
for as long as their lease.
"""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts it first: no queue.py or random.py of whatever folder this is started in

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from barlow_lab.standard_streams import ready_streams
from service import shell_environment
from service.database.engine import make_engine
from service.database.tables import Node
from service.ledger.nodes import is_live
from service.settings import read_settings
from worker.log_text import first_line


def main() -> int:
    """Says in a line what is wrong, if anything is."""
    ready_streams()
    shell_environment.disown_all()
    settings = read_settings()
    engine = make_engine(settings)
    try:
        with Session(engine) as session:
            live = session.scalar(select(is_live(settings.lease_seconds)).where(Node.name == settings.node_name))
    except SQLAlchemyError as error:
        return _unhealthy(f"the run database does not answer: {first_line(error)}")
    finally:
        engine.dispose()
    if not live:
        never = live is None
        return _unhealthy(f"node {settings.node_name} {'has never registered' if never else 'was not seen of late'}")
    return 0


def _unhealthy(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

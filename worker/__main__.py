"""python -m worker: work on what is placed on this host. Settings are environment variables BARLOW_*."""

from __future__ import annotations

import logging
import sys

from pydantic import ValidationError

from service.settings import Settings
from worker.app import run


def main() -> int:
    """Run the worker; returns the exit status: 0 after a drain, 2 if it could not start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings()
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            name = "_".join(["BARLOW", *(str(part).upper() for part in item["loc"])])
            print(f"{name}: {item['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        return 2
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())

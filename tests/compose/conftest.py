"""The system in containers, built once and started once for the tests of this folder, in the order of its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment, run, there
from oracle import Oracle, Undisturbed

HERE = Path(__file__).parent
ORDER = ("files", "system", "two_workers", "backup", "upgrade")
"""Later files use what earlier ones have left in the one system."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder needs a Docker engine, and time to build."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.compose)
        item.add_marker(pytest.mark.timeout(1800))
    ours.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_compose_")))
    items[:] = [item for item in items if item not in ours] + ours


@pytest.fixture(scope="session")
def images() -> None:
    """The three images, built from the code as it is."""
    if not there():
        pytest.fail("make test-compose needs a Docker engine with Compose 2: `docker compose version`, `docker info`")
    revision = run(["git", "rev-parse", "HEAD"]).strip()
    secrets = dict.fromkeys(
        ("POSTGRES_PASSWORD", "BARLOW_DATABASE_PASSWORD", "BARLOW_OWNER_PASSWORD", "MLFLOW_DATABASE_PASSWORD"), "unused"
    )
    secrets |= dict.fromkeys(
        ("REDIS_PASSWORD", "BARLOW_ADMIN_TOKEN", "BARLOW_MLFLOW_TOKEN", "BARLOW_NODE_NAME"), "unused"
    )
    run(["docker", "compose", "build", "--quiet"], BARLOW_REVISION=revision, **secrets)


@pytest.fixture(scope="session")
def system(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The running system."""
    made = Deployment(tmp_path_factory.mktemp("compose"))
    try:
        made.up()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="session")
def oracle(system: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """It remembers the undisturbed runs."""
    return Oracle(system, Undisturbed(tmp_path_factory.mktemp("undisturbed")))

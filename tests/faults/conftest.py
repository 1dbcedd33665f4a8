"""One stack for the tests of a file, and one for all of them where only the representatives run, as in `make test`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_stack import FaultStack
from oracle import Oracle, Undisturbed
from stack_view import PATIENCE

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder is one of the fault suite; it may wait for an undisturbed job beside its own, and what
    warns of a service that is killed meanwhile is shown."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(5 * PATIENCE))
            item.add_marker(pytest.mark.filterwarnings("default"))


def _lifetime(fixture_name: str, config: pytest.Config) -> str:
    return "session" if config.option.markexpr == "representative" else "module"


@pytest.fixture(scope=_lifetime)  # type: ignore[arg-type]
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultStack]:
    """The running stack."""
    stack = FaultStack(tmp_path_factory.mktemp("faults") / "lab")
    try:
        stack.start()
        yield stack
    finally:
        stack.end()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Undisturbed:
    """The undisturbed runs of all stacks, those of the other test processes too."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "undisturbed"
    folder.mkdir(exist_ok=True)
    return Undisturbed(folder)


@pytest.fixture(scope=_lifetime)  # type: ignore[arg-type]
def judge(faulty: FaultStack, undisturbed: Undisturbed) -> Oracle:
    """The oracle of the stack."""
    return Oracle(faulty, undisturbed)


@pytest.fixture
def stack(faulty: FaultStack) -> Iterator[FaultStack]:
    """The stack, ready; what a failed test left at work is cancelled."""
    faulty.wait(faulty.ready, "the stack is ready")
    yield faulty
    for job_id in faulty.unfinished():
        faulty.ask(lambda client, job_id=job_id: client.cancel(job_id))
        faulty.wait_for_end(job_id)


@pytest.fixture
def oracle(stack: FaultStack, judge: Oracle) -> Iterator[Oracle]:
    """The oracle; at the end of a test the stack is idle and whole."""
    yield judge
    judge.check_idle()

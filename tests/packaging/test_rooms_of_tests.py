"""The folders of tests are those of the code, and what test files share stands in one place (CONTRIBUTING.md)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("test_*.py"))
OF_THE_WHOLE = {"compose", "end_to_end", "faults", "packaging", "shell"}
PROGRAMS = {"faults/soak.py"}


def test_every_folder_of_tests_is_one_of_the_code() -> None:
    folders = {path.parent.relative_to(TESTS) for path in FILES}
    places = [ROOT, ROOT / "service", ROOT / "barlow_lab"]
    ours = [folder for folder in folders if str(folder) not in OF_THE_WHOLE]
    assert {"trainer/data/formats", "trainer/evaluation", "ledger"} <= {str(folder) for folder in ours}
    assert [folder for folder in ours if not any((place / folder / "__init__.py").exists() for place in places)] == []


def test_the_table_for_those_who_add_a_test_names_every_folder() -> None:
    table = "\n".join(re.findall(r"^\|.*\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    folders = {path.relative_to(TESTS).parts[0] for path in FILES}
    assert [folder for folder in sorted(folders) if not re.search(rf"\b{folder}\b[^|]*\|", table)] == []


def test_a_test_named_after_a_folder_of_the_trainer_is_there() -> None:
    rooms = sorted(path.parent.name for path in (ROOT / "trainer").glob("*/__init__.py"))
    assert "objectives" in rooms
    named = {path.relative_to(TESTS / "trainer"): path.stem for path in FILES if "trainer" in path.parts}
    strays = [
        path
        for path, stem in named.items()
        for room in rooms
        if stem.startswith(f"test_{room}_") and path.parts[0] != room
    ]
    assert strays == []


def test_what_test_files_share_is_in_support() -> None:
    beside = {path.relative_to(TESTS) for path in TESTS.rglob("*.py") if path.parent != TESTS / "support"}
    helpers = [path for path in beside if not path.name.startswith(("test_", "conftest."))]
    assert {str(path) for path in helpers} == PROGRAMS
    borrowing = [path for path in TESTS.rglob("*.py") if re.search(r"^(from|import) test_", path.read_text(), re.M)]
    assert borrowing == []


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by it, as none of their folders is a package."""
    assert [name for name, count in Counter(path.name for path in FILES).items() if count > 1] == []

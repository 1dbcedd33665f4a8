"""What a spec costs is bounded by its size, whatever stands in it."""

from __future__ import annotations

import difflib
from typing import Any

import pytest

from barlow_lab import spelling
from barlow_lab.specs import SpecError, parse_spec, registered
from barlow_lab.specs.parsing import LONGEST_PART, MAX_FAULTS


def refused(value: object) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse_spec(value)
    return caught.value


def pretrain(**fields: Any) -> dict[str, Any]:
    return {"kind": "pretrain", "data": "digits", **fields}


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Each word that is compared, and with how many."""
    seen = []
    plain = difflib.get_close_matches

    def count(word: str, possibilities: Any, n: int = 3) -> list[str]:
        possibilities = list(possibilities)
        seen.append((word, len(possibilities)))
        return plain(word, possibilities, n)

    monkeypatch.setattr(spelling.difflib, "get_close_matches", count)
    return seen


def test_only_the_first_unknown_names_are_compared(compared: list[tuple[str, int]]) -> None:
    error = refused(pretrain(**{f"batch_siz{i}": 1 for i in range(60)}))
    assert len(compared) == spelling.COMPARED
    hints = ["did you mean 'batch_size'?" in fault.message for fault in error.faults]
    assert hints == [True] * spelling.COMPARED + [False] * 50
    compared.clear()
    assert "did you mean 'batch_size'?" in refused(pretrain(bach_size=1)).faults[0].message, "each reading anew"


def test_a_reading_within_another_one_compares_no_more(compared: list[tuple[str, int]]) -> None:
    with spelling.one_reading():
        for _ in range(20):
            refused(pretrain(bach_size=1, backbone={"name": "resnet51"}))
    assert len(compared) == spelling.COMPARED


def test_a_name_is_compared_with_few_others_of_about_its_length(compared: list[tuple[str, int]]) -> None:
    known = ["x" * 40, *(f"job-{i:04}" for i in range(10_000))]
    assert spelling.nearest("jbo-0003", known) == "job-0003"
    assert spelling.nearest("y" * (spelling.LONGEST + 1), known) is None
    assert compared == [("jbo-0003", spelling.CANDIDATES)]


def test_of_many_faults_the_first_are_told_and_the_others_counted() -> None:
    error = refused(pretrain(**{f"unknown_{i}": 1 for i in range(1234)}))
    assert [fault.pointer for fault in error.faults] == [f"/unknown_{i}" for i in range(MAX_FAULTS)]
    assert error.left_out == 1234 - MAX_FAULTS
    assert str(error).endswith("and 1,134 more: mend these first")


def test_a_fault_does_not_repeat_what_is_very_long() -> None:
    [fault] = refused(pretrain(**{"x" * 500_000: 1})).faults
    assert fault.pointer == f"/{'x' * LONGEST_PART}..."
    error = refused(pretrain(run={"labels": {"k" * 100_000: "v", "b": "v" * 100_000}}, name="n" * 100_000))
    assert len(str(error)) < 5_000


def test_the_packages_of_the_machine_are_read_once_for_many_unknown_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(registered, "entry_points", lambda group: reads.append(group) or ())
    monkeypatch.setattr(registered, "FRESH_SECONDS", 1e9)
    registered._read.cache_clear()
    for i in range(20):
        refused(pretrain(backbone={"name": f"net-{i}"}))
    registered._read.cache_clear()
    assert reads == [registered.BACKBONES]

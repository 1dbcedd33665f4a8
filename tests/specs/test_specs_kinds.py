"""A kind tells by itself what is asked of it: whoever asks names none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from barlow_lab.specs import BarlowTwinsSpec, parse_spec
from barlow_lab.specs.data_set_uses import kinds_in_order
from barlow_lab.specs.kinds import KINDS, MAKERS, TAKERS
from service import evaluations, mlflow_layout
from service.api import examples

ROOT = Path(__file__).resolve().parents[2]
CLASSES = {model.__name__ for model in KINDS.values()}
OWN_FILES = (
    "barlow_lab/specs/kinds/",
    "trainer/pretraining/",
    *(
        f"trainer/evaluation/{name}.py"
        for name in ("closed_form", "knn", "linear", "linear_cached", "semi_supervised", "svm")
    ),
    "trainer/evaluation/detection/",
    "trainer/evaluation/invariance/",
)
"""Of the kinds themselves; the first has the list of them."""
NAMED = {
    "barlow_lab/specs/__init__.py": "what a user imports",
    "barlow_lab/specs/objectives/vicreg.py": "a weight of VICReg's",
    "trainer/objectives/vicreg.py": "a term of VICReg's",
    "service/local/demo.py": "the jobs of its recipe, by their names",
    "service/local/agreement.py": "metrics of probes",
    "trainer/diagnostics/probes.py": "metrics of probes",
}


def namings(source: str) -> Iterator[str]:
    """A kind's name, alone or before a metric's, as a value; and a test or an import of its spec."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in KINDS or node.value.startswith(tuple(f"{kind}_" for kind in KINDS)):
                yield f"{node.lineno}: {node.value!r}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            tested = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            yield from (f"{node.lineno}: isinstance of {name}" for name in tested & CLASSES)


def test_nobody_asks_which_kind_it_is() -> None:
    found = {
        str(path.relative_to(ROOT)): list(namings(path.read_text()))
        for room in ("barlow_lab", "service", "worker", "trainer")
        for path in (ROOT / room).rglob("*.py")
    }
    named = {path: said for path, said in found.items() if said and not path.startswith(OWN_FILES)}
    assert {path: said for path, said in named.items() if path not in NAMED} == {}
    asking = (path for room in ("service", "worker") for path in (ROOT / room).rglob("*.py"))
    assert [str(path) for path in asking if any(name in path.read_text() for name in CLASSES)] == []


def test_what_a_kind_is_called_and_what_it_makes_and_takes_stands_in_the_list() -> None:
    assert list(KINDS) == [
        "pretrain",
        "linear",
        "knn",
        "semi_supervised",
        "svm",
        "detection",
        "closed_form",
        "invariance",
    ]
    assert MAKERS == ("pretrain",)
    assert TAKERS == ("linear", "knn", "semi_supervised", "svm", "detection", "closed_form", "invariance")
    for kind, model in KINDS.items():
        spec = parse_spec(model.example.value)
        assert (type(spec), spec.kind) == (model, kind)
        assert (spec.backbone_made is not None, spec.backbone_from_elsewhere is not None) == (
            kind in MAKERS,
            kind in TAKERS,
        )


def test_examples_and_kinds_of_a_data_set_stand_in_their_order() -> None:
    assert list(examples.JOBS) == [
        "pretrain", "closed_form", "linear", "semi_supervised", "knn", "svm", "invariance", "detection",
    ]  # fmt: skip
    jobs = ["pretrain", "closed-form", "invariance", "knn", "linear", "ten-percent", "svm", "masks"]
    assert list(examples.EXPERIMENT["jobs"]) == jobs
    assert kinds_in_order() == [
        "pretrain", "closed_form", "invariance", "knn", "linear", "semi_supervised", "svm", "detection",
    ]  # fmt: skip


JUDGED: dict[str, Any] = {"data": "textures", "backbone_from": {"job": "p"}}


@pytest.mark.parametrize(
    ("spec", "trains"),
    [
        ({"kind": "pretrain", "data": "textures", "precision": "bf16"}, True),
        ({"kind": "linear", **JUDGED, "precision": "bf16"}, True),
        ({"kind": "linear", **JUDGED, "precision": "bf16", "protocol": "cached-features"}, False),
        ({"kind": "semi_supervised", **JUDGED, "precision": "bf16", "labels": {"percent": 10}}, True),
        ({"kind": "detection", **JUDGED, "precision": "bf16"}, True),
        ({"kind": "knn", **JUDGED}, False),
        ({"kind": "svm", **JUDGED}, False),
        ({"kind": "closed_form", **JUDGED}, False),
        ({"kind": "invariance", **JUDGED}, False),
    ],
)
def test_what_trains_no_network_starts_over_and_is_exact(spec: dict[str, Any], trains: bool) -> None:
    parsed = parse_spec(spec)
    assert (parsed.trains_network, parsed.goes_on, parsed.products) == (trains, trains, "bf16" if trains else "fp32")


def test_each_formula_says_what_its_kind_has_and_nothing_of_others() -> None:
    words = {kind: model.memory_formula for kind, model in KINDS.items()}
    assert len(set(words.values())) == len(words)
    for said in words.values():
        assert said.startswith("bytes on each slot. weights: ")
        assert said.endswith("leave about 2 GB.")
    assert [kind for kind, said in words.items() if "objective: " in said] == ["pretrain"]
    pretrain = parse_spec(KINDS["pretrain"].example.value)
    assert pretrain.memory_words.startswith(words["pretrain"])
    assert pretrain.memory_words.endswith(f" barlow_twins holds {BarlowTwinsSpec.memory_words}.")
    assert [kind for kind, said in words.items() if "feature width" in said] == [
        "linear", "knn", "svm", "closed_form", "invariance",
    ]  # fmt: skip


def test_fields_that_are_spelt_as_text_are_fields() -> None:
    """Where SQL reads a stored spec, or a dict of it is gone through, no type checker sees another name."""
    specs = [parse_spec(model.example.value).resolved() for model in KINDS.values()]
    fields = {field for spec in specs for field in spec}
    for named in (evaluations._NOT_MEASURED, mlflow_layout._HOW, mlflow_layout._FIRST):
        assert set(named) <= fields
    taken = [spec["backbone_from"] for spec in specs if spec["kind"] in TAKERS]
    for text, held in (
        ("spec #>> '{backbone_from,file}'", all("file" in source for source in taken)),
        ("spec #>> '{backbone_from,torchvision}'", all("torchvision" in source for source in taken)),
        ("spec -> 'data' ->> 'name'", all(isinstance(spec["data"]["name"], str) for spec in specs)),
        ("spec -> 'run' ->> 'preemptible'", all(isinstance(spec["run"]["preemptible"], bool) for spec in specs)),
    ):
        read = [(ROOT / "service" / file).read_text() for file in ("scheduling/rows.py", "database/tables.py")]
        assert held, text
        assert any(text in source for source in read), text

"""How a GPU may round products: set once for every kind of job, and never for what is called exact."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import runs
import torch
from torch._C._dynamo.guards import GlobalStateGuard

from barlow_lab.specs import parse_spec
from trainer import execution
from trainer.diagnostics import probes
from trainer.pretraining import pretrain
from trainer.runtime import precision

GPU = torch.device("cuda")
EVALUATION = {"data": "digits", "backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}


def _flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def as_torch_has_them() -> Iterator[None]:
    before = _flags()
    precision._allow_tf32(False, True)
    yield
    precision._allow_tf32(*before)


@pytest.mark.parametrize("chosen", ["fp32", "fp64", "bf16", "fp16"])
def test_float32_is_rounded_only_beside_products_of_16_bits(chosen: precision.Precision) -> None:
    precision.set_products(chosen, GPU)
    fast = chosen in ("bf16", "fp16")
    assert _flags() == (fast, fast)
    with precision.exact_products(GPU):
        assert _flags() == (False, False)
    assert _flags() == (fast, fast)


def test_exact_products_leave_what_a_compiled_pass_was_compiled_for() -> None:
    torch.backends.cuda.matmul.fp32_precision = "none"  # as torch has it: never set
    untouched = GlobalStateGuard()
    with precision.exact_products(torch.device("cpu")):
        assert untouched.check()
    assert untouched.check(), untouched.reason()
    for chosen in get_args(precision.Precision):
        precision.set_products(chosen, GPU)
        compiled_for = GlobalStateGuard()
        with precision.exact_products(GPU):
            pass
        assert compiled_for.check(), (chosen, compiled_for.reason())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "pretrain", "data": "digits"}, "fp32"),
        ({"kind": "pretrain", "data": "digits", "precision": "bf16"}, "bf16"),
        ({"kind": "knn", **EVALUATION}, "fp32"),
        ({"kind": "svm", **EVALUATION}, "fp32"),
        ({"kind": "linear", **EVALUATION, "precision": "bf16"}, "bf16"),
        ({"kind": "linear", **EVALUATION, "protocol": "cached-features"}, "fp32"),
        ({"kind": "semi_supervised", **EVALUATION, "labels": {"percent": 10}, "precision": "bf16"}, "bf16"),
        ({"kind": "detection", **EVALUATION, "backbone": {"name": "resnet50"}, "precision": "bf16"}, "bf16"),
    ],
)
def test_every_kind_sets_it_before_anything_runs(
    fields: dict[str, Any], expected: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Set(Exception):
        pass

    def setting(chosen: precision.Precision, device: torch.device) -> None:
        raise Set(chosen)

    monkeypatch.setattr(execution, "set_products", setting)
    with pytest.raises(Set, match=expected):
        execution._run(parse_spec(fields), runs.context(tmp_path))


def test_probes_of_a_run_in_16_bits_are_exact(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    precision.set_products("bf16", GPU)
    look = probes.Probes._look
    monkeypatch.setattr(probes, "exact_products", lambda device: precision.exact_products(GPU))
    monkeypatch.setattr(probes.Probes, "_look", lambda self, backbone: seen.append(_flags()) or look(self, backbone))
    record = {"metrics_every_steps": 5, "probes": {"every_epochs": 1, "limit": 64, "epochs": 1, "k": 5}}
    assert pretrain(runs.spec(epochs=1, run={"record": record}), runs.context(tmp_path)).outcome == "ok"
    assert seen
    assert set(seen) == {(False, False)}
    assert _flags() == (True, True)

"""The gradient of every objective is that of finite differences, by the check that docs/adding-an-objective.md names;
what it shows as an example passes, and what it warns of does not.

Shape suffixes: n images, d features.
"""

import re
import textwrap
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from barlow_lab.specs import PretrainSpec
from barlow_lab.specs.stored import _choices
from trainer.objectives.base import Objective, Run, Terms, build_objective
from trainer.objectives.correlation import centred_features
from trainer.runtime.collectives import sum_over_ranks

PAGE = Path(__file__).parents[3] / "docs" / "adding-an-objective.md"
VARIED: dict[str, list[dict[str, Any]]] = {
    "barlow_twins": [{}, {"form": "direct"}, {"normalisation": "feature"}, {"loss": "cross_entropy", "temperature": 1}],
    "view_distance": [{"variance": 25}],
    "simsiam": [{"stop_gradient": False}],
}
"""What is asked of an objective other than its defaults."""
OBJECTIVES = _choices(PretrainSpec.model_fields["objective"].annotation)
NAMES = [get_args(one.model_fields["name"].annotation)[0] for one in OBJECTIVES]
EVERY = [{"name": name, **of} for name in NAMES if name != "pcl" for of in VARIED.get(name, [{}])]  # pcl: its own test


def check(objective: Objective) -> None:
    """The check of the page: raises where the gradient is not the true one."""
    objective.begin(Run(12, 3, epochs=2, seed=0, device=torch.device("cpu"), dtype=torch.float64))
    if objective.parts is not None:
        objective.parts.double()
    generator = torch.Generator().manual_seed(0)
    views = [(0.3 * torch.randn(12, 3, dtype=torch.float64, generator=generator)).requires_grad_() for _ in range(2)]
    torch.autograd.gradcheck(lambda z_a, z_b: objective(z_a, z_b).loss, views)


@pytest.mark.parametrize("fields", EVERY, ids=lambda fields: " ".join(map(str, fields.values())))
def test_the_gradient_is_that_of_finite_differences(fields: dict[str, Any]) -> None:
    given = {"data": "digits", "batch_size": 12, "projector": {"widths": [3]}, "objective": fields}
    check(build_objective(PretrainSpec.model_validate(given).objective))


def test_the_example_of_the_page_has_the_true_gradient() -> None:
    block = re.search(r"### The gradient.*?```python\n(.*?)```", PAGE.read_text(), re.S)
    assert block is not None
    code = "class Shown(Objective):\n" + textwrap.indent(block[1], "    ")
    names: dict[str, Any] = {
        "Objective": Objective, "Tensor": Tensor, "Terms": Terms, "torch": torch,
        "centred_features": centred_features, "sum_over_ranks": sum_over_ranks,
    }  # fmt: skip
    exec(code, names)
    check(names["Shown"](None))


class Partial(Objective):
    """A term with a gradient, and one from statistics that are outside autograd."""

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        centred = centred_features(z_a_nd, z_b_nd)
        hinge = torch.relu(1 - (centred.squares_2d / (centred.samples - 1)).sqrt()).mean()
        distance = sum_over_ranks((z_a_nd - z_b_nd).square().sum()) / centred.samples
        return Terms(distance + 25 * hinge, {})


def test_the_check_tells_of_a_term_without_its_gradient() -> None:
    assert "**Both are outside autograd**" in PAGE.read_text()
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        check(Partial(None))

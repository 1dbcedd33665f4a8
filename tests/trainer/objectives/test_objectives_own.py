"""An objective of one's own: one file outside the tree, an entry point, and it is trained with like any other."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import runs
from distributions import put_on_path

from barlow_lab.specs import PretrainSpec, SpecError, canonical_json, digest, open_stored, parse_spec, written_out
from barlow_lab.specs.registered import OBJECTIVES
from trainer.failures import of_exception
from trainer.objectives.base import build_objective
from trainer.pretraining import pretrain

UNIFORMITY = '''
"""Alignment and uniformity (Wang and Isola 2020, arXiv 2005.10242)."""
from typing import ClassVar, Literal

import torch
from pydantic import Field

from barlow_lab.specs import ObjectiveBase
from trainer.objectives.base import Objective, Terms
from trainer.runtime.collectives import all_gather


class UniformitySpec(ObjectiveBase):
    implementation: ClassVar[str] = "MODULE:Uniformity"
    memory_words: ClassVar[str] = "b x batch^2"
    name: Literal["uniformity"]
    temperature: float = Field(2.0, gt=0.0)
    width_needed: int = 2

    def faults(self, *, batch_size, width):
        few = width < self.width_needed
        return {"width_needed": f"{width} is below {self.width_needed}; widen the projector"} if few else {}

    def numbers_held(self, *, samples, features, ranks):
        return samples * samples


def of_all_ranks(z_nd):
    """All rows, with a gradient for this rank's."""
    parts = list(all_gather(z_nd.detach()).unbind())
    parts[torch.distributed.get_rank() if torch.distributed.is_initialized() else 0] = z_nd
    return torch.cat(parts)


class Uniformity(Objective):
    def __call__(self, z_a_nd, z_b_nd):
        a, b = (torch.nn.functional.normalize(of_all_ranks(z.float()), dim=1) for z in (z_a_nd, z_b_nd))
        alignment = (a - b).square().sum(1).mean()
        spread = sum(torch.pdist(z).square().mul(-self.spec.temperature).exp().mean().log() for z in (a, b)) / 2
        loss = alignment + spread
        return Terms(loss, {"alignment": alignment.detach(), "uniformity": spread.detach()})


class Elsewhere(UniformitySpec):
    implementation: ClassVar[str] = "a_module_that_is_not_here:Uniformity"
    name: Literal["elsewhere"]

class LikeItsField(UniformitySpec):
    name: Literal["width_needed"]

class NoObjective(UniformitySpec):
    implementation: ClassVar[str] = "builtins:repr"
    name: Literal["no_objective"]

class Wordless(ObjectiveBase):
    implementation: ClassVar[str] = "MODULE:Uniformity"
    name: Literal["wordless"]
    def numbers_held(self, *, samples, features, ranks):
        return 0

class Homeless(ObjectiveBase):
    memory_words: ClassVar[str] = "nothing"
    name: Literal["homeless"]
    def numbers_held(self, *, samples, features, ranks):
        return 0

class Raises(UniformitySpec):
    name: Literal["raises"]
    def faults(self, *, batch_size, width):
        raise KeyError("batch")

class Unsure(UniformitySpec):
    name: Literal["unsure"]
    def numbers_held(self, *, samples, features, ranks):
        return samples / 3

class Default(UniformitySpec):
    name: Literal["default"] = "default"

class Unfinished(ObjectiveBase):
    implementation: ClassVar[str] = "MODULE:Uniformity"
    name: Literal["unfinished"]

class BarlowTwins(UniformitySpec):
    name: Literal["barlow_twins"]
'''
Install = Callable[..., Path]
BASE = {"kind": "pretrain", "data": "digits"}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with the given entry points on the path."""

    def put(module: str, **entries: str) -> Path:
        code = UNIFORMITY.replace("MODULE", module)
        return put_on_path(monkeypatch, tmp_path, module, code, OBJECTIVES, entries)

    return put


def faults(**objective: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec({**BASE, "objective": objective})
    return {fault.pointer: fault.message for fault in caught.value.faults}


def test_it_is_trained_with_like_any_other(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("own_uniformity", uniformity="UniformitySpec")
    spec = runs.spec(objective={"name": "uniformity"})
    assert pretrain(spec, runs.context(tmp_path / "whole")).outcome == "ok"
    points = [event.data["values"] for event in runs.events(tmp_path / "whole") if event.kind == "metrics"]
    losses = [values for values in points if "loss" in values]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert losses[0]["loss"] == pytest.approx(losses[0]["alignment"] + losses[0]["uniformity"])

    stopped = runs.context(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(stopped.stop, "requested", lambda step: step == 7)
        assert pretrain(spec, stopped).outcome == "stopped"
    assert pretrain(spec, runs.context(tmp_path / "run", 2)).outcome == "ok"
    assert runs.series(tmp_path / "run") == runs.series(tmp_path / "whole")


def test_two_ranks_by_hand_find_it_where_it_is_installed(install: Install, tmp_path: Path) -> None:
    """As processes of their own, whose path is that of the user's shell."""
    site = install("own_by_hand", uniformity="UniformitySpec")
    spec = tmp_path / "spec.json"
    spec.write_text(canonical_json(runs.spec(objective={"name": "uniformity"}, max_steps=2).resolved()))
    command = [sys.executable, "-m", "trainer", str(spec), "--run-dir", str(tmp_path / "run"), "--ranks", "2"]
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    alone = pretrain(parse_spec(json.loads(spec.read_text())), runs.context(tmp_path / "alone"))  # type: ignore[arg-type]
    assert alone.outcome == "ok"
    first, second = (runs.events(tmp_path / name, kind="metrics")[0].data["values"] for name in ("run", "alone"))
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-3)


def test_its_spec_is_judged_dumped_and_opened_as_what_it_is(install: Install) -> None:
    install("own_spec", uniformity="UniformitySpec")
    plain, warm = (parse_spec({**BASE, "objective": {"name": "uniformity", **t}}) for t in ({}, {"temperature": 3}))
    assert len({digest(plain), digest(warm), digest(parse_spec(BASE))}) == 3
    assert plain.resolved()["objective"] == {"name": "uniformity", "temperature": 2.0, "width_needed": 2}
    opened = open_stored(warm.resolved())
    assert isinstance(opened, PretrainSpec)
    assert isinstance(warm, PretrainSpec)
    assert opened.objective == warm.objective
    assert parse_spec(warm.resolved()) == warm

    assert faults(name="uniformity", temperatur=1, width_needed=0.5) == {
        "/objective/temperatur": "unknown field; did you mean 'temperature'?",
        "/objective/width_needed": "Input should be a valid integer, got a number with a fractional part",
    }
    assert faults(name="uniformity", width_needed=9000) == {
        "/objective/width_needed": "8192 is below 9000; widen the projector"
    }
    assert faults(name="uniformity", **{"lambda": 1}) == {
        "/objective/lambda": "unknown field; it belongs to barlow_twins and information_bottleneck: set "
        "`name` to that, or leave it out"
    }
    of_own = faults(name="vicreg", width_needed=3)["/objective/width_needed"]
    assert of_own == "unknown field; it belongs to uniformity: set `name` to that, or leave it out"
    assert faults(name="uniformty")["/objective/name"].startswith("unknown name 'uniformty'; use one of barlow_twins, ")
    assert ", uniformity; did you mean 'uniformity'?" in faults(name="uniformty")["/objective/name"]


def test_a_stored_one_opens_where_it_is_not_installed_any_more(install: Install) -> None:
    stored = parse_spec(BASE).resolved()
    opened = open_stored({**stored, "objective": {"name": "gone", "temperature": 2.0}})
    assert isinstance(opened, PretrainSpec)
    assert opened.objective.name == "gone"
    with pytest.raises(ValueError, match="'gone' is not installed here"):
        opened.objective.numbers_held(samples=8, features=8, ranks=1)
    install("own_broken_since", gone="not_there")
    opened = open_stored({**stored, "seed": 5, "objective": {"name": "gone", "temperature": 2.0}})
    assert isinstance(opened, PretrainSpec)
    assert opened.objective.name == "gone"


def test_a_stored_one_is_opened_as_itself_once_it_is_installed(install: Install) -> None:
    stored = {**parse_spec(BASE).resolved(), "objective": {"name": "uniformity", "temperature": 3.0}}
    assert written_out(stored)["objective"] == stored["objective"]
    install("own_since", uniformity="UniformitySpec")
    assert written_out(stored)["objective"] == {**stored["objective"], "width_needed": 2}


def test_faults_of_one_that_is_called_like_its_field_stand_at_the_field(install: Install) -> None:
    install("own_like_its_field", width_needed="LikeItsField")
    for wrong in (9000, 0.5):
        assert faults(name="width_needed", width_needed=wrong).keys() == {"/objective/width_needed"}
    assert faults(name="width_needed", temperatur=1).keys() == {"/objective/temperatur"}


def test_a_name_of_the_house_stays_the_house_s(install: Install) -> None:
    install("own_thief", barlow_twins="BarlowTwins")
    assert parse_spec({**BASE, "objective": {"name": "barlow_twins"}}) == parse_spec(BASE)


@pytest.mark.parametrize(
    ("name", "place", "said"),
    [
        (
            "missing",
            "not_there",
            "cannot be imported (AttributeError: module 'own_missing' has no attribute 'not_there')",
        ),
        ("uniform", "Uniformity", "is no subclass of barlow_lab.specs.ObjectiveBase"),
        ("other", "UniformitySpec", 'has no field `name: Literal["other"]`'),
        ("default", "Default", "gives its name a default, so that a digest would not tell it from another objective"),
        ("unfinished", "Unfinished", "does not define numbers_held"),
        ("raises", "Raises", "cannot be asked (KeyError: 'batch')"),
        (
            "unsure",
            "Unsure",
            "cannot be asked (ValueError: numbers_held gives 682.6666666666666, not a number of numbers)",
        ),
        ("wordless", "Wordless", "does not say its `memory_words`"),
        ("homeless", "Homeless", "does not say its `implementation`, MODULE:CLASS"),
    ],
)
def test_what_is_no_objective_is_refused_in_a_spec(install: Install, name: str, place: str, said: str) -> None:
    install(f"own_{name}", **{name: place})
    told = f"objective '{name}' (own_{name}:{place}) {said}; mend it where it is defined"
    assert faults(name=name) == {"/objective/name": told}


@pytest.mark.parametrize(
    ("name", "place", "said"),
    [
        ("elsewhere", "Elsewhere", "cannot be made (ModuleNotFoundError: No module named 'a_module_that_is_not_here')"),
        ("no_objective", "NoObjective", "gives a str when called, not a trainer.objectives.base.Objective"),
    ],
)
def test_what_makes_no_objective_is_a_bad_spec(install: Install, name: str, place: str, said: str) -> None:
    install(f"own_made_{name}", **{name: place})
    spec = parse_spec({**BASE, "objective": {"name": name}})
    assert isinstance(spec, PretrainSpec)
    with pytest.raises(SpecError) as caught:
        build_objective(spec.objective)
    assert said in str(caught.value)
    assert of_exception(caught.value).outcome == "bad_spec"

"""Health of the embeddings in numbers and in words: do they vary, in how many directions, do features repeat others.

Complete collapse: the embeddings of all images are alike. Dimensional collapse: they differ in few directions alone
(Jing, Vincent, LeCun, Tian 2022, arXiv 2110.09348). Neither shows in a loss: what does not vary passes no gradient.

Shape suffixes: n images, d features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from trainer.diagnostics.base import BatchDiagnostic, BatchSeen, Diagnosed, Records
from trainer.diagnostics.nothing_to_learn import REMEDY
from trainer.diagnostics.spectra import squared_singular_values
from trainer.failures import Diverged
from trainer.objectives.base import Terms
from trainer.runtime import collectives

SAME = 1e-3
"""Features that differ by less than this part of their size are the same: batch normalisation, in training, enlarges
what rounding has left of a difference."""

COLLAPSED_SPREAD = 0.1
"""Below it the embeddings of all images are alike. Nobody has published a threshold; of five objectives on the textures
of the demo, the one that is known to shrink has 0.32, the others 0.5 to 0.95."""

COLLAPSED_SHARE = 0.01
"""Of the directions that can be seen. Nobody has published a threshold. 10 % would name healthy runs of the demo,
which carry 99 % of the variance in 6 of 127 directions, and reach 87 % by kNN."""

FEW_SHARE = 0.1
CARRIED = 0.99
POWER_LAW_RANKS = (5, 100)
"""Of the eigenvalues that a power law is fitted to, counted from 1: the first few follow none."""

ADVICE = "look at the objective's weights and the learning rate (docs/diagnostics.md, Health)"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look has found: sentences, and which collapse, with the sentence that tells it and what to look at."""

    said: list[str]
    collapse: str | None = None
    why: str = ""
    remedy: str = ADVICE


class Health(BatchDiagnostic):
    """Records `feature_spread`, `directions_99` and `alpha_req` with each correlation record, says in words what they
    mean, warns where a collapse begins, and ends the run by it where `run.stop_on` asks for that."""

    name = "health"
    metric_names = ("feature_spread", "directions_99", "alpha_req")
    every_rank = True

    def __init__(self, run: Diagnosed) -> None:
        self._plan = run.plan
        self._context = run.context
        self._stops = "collapse" in run.spec.run.stop_on
        self._newest = Finding([])

    @classmethod
    def of(cls, run: Diagnosed) -> Self:
        return cls(run)

    def due(self, step: int) -> bool:
        return bool(self._plan.correlations_due(step))

    @property
    def last_words(self) -> str | None:
        """The collapse that the newest look has found."""
        return self._newest.why or None

    @property
    def result(self) -> Mapping[str, Any]:
        """The sentences of the newest look, as `health`."""
        return {"health": self._newest.said} if self._newest.said else {}

    def state_dict(self) -> dict[str, Any]:
        return {"health": list(astuple(self._newest))}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        if "health" in saved:  # versions before this one saved none
            self._newest = Finding(*saved["health"])

    def observe(self, seen: BatchSeen, records: Records) -> None:
        """Look on rank 0, whose finding is that of all ranks; at nothing of a step whose embeddings are not finite.

        Raises:
            Diverged: they have collapsed, and the spec asks to end by that.
        """
        found = self._look(seen, records) if self._context.rank == 0 else None
        mine = [] if found is None else [json.dumps(astuple(found))]
        every = collectives.all_gather_texts(mine, self._context.device)
        if not every:
            return
        before, self._newest = self._newest, Finding(*json.loads(every[0]))
        now, step = self._newest, self._plan.correlations_due(seen.step)[0]
        self._context.say(f"health at step {step}: {'; '.join(now.said)}")
        if now.collapse is None:
            return
        if self._stops:
            raise Diverged(f"step {step}: {now.why}; run.stop_on ends the run by that: {now.remedy}", seen.step)
        if now.collapse != before.collapse:
            self._context.warn(f"step {step}: {now.why}; {now.remedy}", collapse=now.collapse)

    def _look(self, seen: BatchSeen, records: Records) -> Finding | None:
        views = {"a": _wide(seen.z_a_nd), "b": _wide(seen.z_b_nd)}
        if not all(bool(view.isfinite().all()) for view in views.values()):
            return None
        self._context.working(self.name)
        spreads = {name: spread(view) for name, view in views.items()}
        variances = squared_singular_values(views["a"] - views["a"].mean(0))
        self._context.working(self.name)
        values = {"feature_spread": min(spreads.values()), "directions_99": float(directions(variances))}
        if (slope := alpha_req(variances)) is not None:
            values["alpha_req"] = slope
        for step in self._plan.correlations_due(seen.step):
            records.at(step).metrics(values)
        constant = next((name for name, view in views.items() if same(view)), None)
        if constant is not None:
            which = f"the features of all {len(views[constant]):,} images are the same (view {constant})"
            why = "nothing is learned, for what does not vary passes no gradient"
            said = f"{which}: complete collapse; {why}"
            return Finding([said], "complete", said, REMEDY)
        found = in_words(spreads, directions(variances), tuple(views["a"].shape))
        floor = _of_the_floor(seen.terms)
        # What a network is before its first step is not what its training has come to.
        if seen.step == 1:
            found = Finding([one for one in found.said if one != found.why])
        return replace(found, said=[*floor, *found.said])


def same(z_nd: Tensor) -> bool:
    """Whether the embeddings of all images are equal up to rounding."""
    size, difference = z_nd.square().mean().sqrt(), (z_nd - z_nd.mean(0)).square().mean().sqrt()
    return bool(difference <= SAME * size)


def spread(z_nd: Tensor) -> float:
    """The mean standard deviation of the features of embeddings (n, d) of length 1, times the root of d: 1 where they
    point evenly in all directions, 0 where all are the same (Chen and He 2021, arXiv 2011.10566, figure 2, where the
    root is left out)."""
    mean = float(torch.nn.functional.normalize(z_nd, dim=1).std(0, correction=0).mean())
    return mean * float(z_nd.shape[1] ** 0.5)


def directions(variances: Tensor) -> int:
    """How many of the principal directions, whose variances are given in descending order, carry 99 % of them all; 0
    where there is none."""
    carried = variances.cumsum(0)
    return 0 if not bool(carried[-1] > 0) else int((carried < CARRIED * carried[-1]).sum()) + 1


def alpha_req(variances: Tensor) -> float | None:
    """The exponent a of variances that fall with their rank k as k^-a, in descending order: minus the slope of log
    variance on log k, by least squares weighted by 1 / k (Agrawal et al. 2022, alpha-ReQ). None where fewer than 10
    ranks are there to fit."""
    first, last = POWER_LAW_RANKS
    shown = variances[variances > variances[0] * 1e-12][first - 1 : last].double().cpu()
    if len(shown) < 10:
        return None
    rank = torch.arange(first, first + len(shown), dtype=torch.float64)
    weight = 1 / rank / (1 / rank).sum()
    x, y = rank.log(), shown.log()
    x = x - (weight * x).sum()
    return -float((weight * x * y).sum() / (weight * x.square()).sum())


def in_words(spreads: Mapping[str, float], carrying: int, shape: tuple[int, ...]) -> Finding:
    """What spread of each view and the number of directions that carry 99 % of the variance mean, for (n, d) embeddings
    that are not constant."""
    images, features = shape
    seen = min(images - 1, features)
    of = f"{seen:,} directions" if seen == features else f"the {seen:,} directions that {images:,} images can show"
    said = f"{carrying:,} of {of} {'carries' if carrying == 1 else 'carry'} 99 % of the variance"
    name, least = min(spreads.items(), key=lambda item: item[1])
    if least < COLLAPSED_SPREAD:
        why = f"the features spread by {least:.2g} of what evenly spread ones do (view {name}): complete collapse"
        return Finding([said, why], "complete", why)
    if carrying <= max(1, COLLAPSED_SHARE * seen) and seen > 1:
        why = f"{said}: dimensional collapse"
        return Finding([why], "dimensional", why)
    return Finding([f"{said}: few are in use" if carrying <= FEW_SHARE * seen else said])


def _of_the_floor(terms: Terms) -> list[str]:
    """How the off-diagonal sum stands to its noise floor, of an objective that has one."""
    floor, energy = terms.known.get("noise_floor"), terms.parts.get("off_diagonal")
    if not floor or energy is None:
        return []
    ratio = float(energy) / floor
    said = f"off-diagonal energy is {ratio:.3g} of what independent features would give at this batch size"
    if ratio < 0.9:
        return [f"{said}: decorrelated on this batch beyond chance"]
    if ratio <= 1.1:
        return [f"{said}: nearly decorrelated"]
    return [f"{said}: weakly correlated" if ratio <= 2 else f"{said}: features repeat one another"]


def _wide(z_nd: Tensor) -> Tensor:
    return z_nd.to(torch.promote_types(z_nd.dtype, torch.float32))

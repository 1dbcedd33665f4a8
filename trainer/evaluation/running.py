"""An evaluation from its spec to its result."""

from __future__ import annotations

import importlib
from typing import Any

from barlow_lab.outcome import Outcome
from barlow_lab.specs import BackboneJudged
from trainer.runtime.context import Context


def evaluate(spec: BackboneJudged, context: Context) -> Outcome:
    """What a job ends with that judges the backbone that `spec` names.

    Raises:
        BadSpec, DataError, Diverged: see `run_evaluation`.
    """
    result = run_evaluation(spec, context)
    if result is None:
        reason = context.stop.reason
        return Outcome("stopped", f"stopped: {reason}", step=context.step, reason=reason)
    headline = result["headline"]
    measured = f"{spec.kind}: {headline} {result['scores'][headline]['last']:.1f} %"
    said = f"{measured} of {result['data']['test_images']:,} test images"
    return Outcome("ok", said, step=context.step, result=result)


def run_evaluation(spec: BackboneJudged, context: Context) -> dict[str, Any] | None:
    """Judge the backbone that `spec` names; the result on every rank, or None if a stop was asked for.

    The result holds `protocol` (name and version), `departures` from it, `headline` (the score that counts), `scores`
    ({name: {"last", "best"}}, in percent), `data`, `backbone`, and what the protocol adds. `data.limit` holds for the
    training split; the test split is always whole.

    Raises:
        BadSpec: the backbone cannot be used, or the spec does not fit the data.
        DataError: the data cannot be used.
        Diverged: the training's rate is too high.
    """
    module, _, name = spec.judged_by.partition(":")
    judged = getattr(importlib.import_module(module), name)(spec, context)
    return None if judged is None else {"protocol": spec.protocol_name, "departures": spec.departures(), **judged}

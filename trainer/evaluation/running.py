"""An evaluation from its spec to its result."""

from __future__ import annotations

from typing import Any

from barlow_lab.specs import BackboneJudged, DetectionSpec, KnnSpec, LinearSpec, SemiSupervisedSpec, SvmSpec
from trainer.runtime.context import Context

KNN_PROTOCOL = "knn/1"


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
    judged = _judge(spec, context)
    if judged is None:
        return None
    if isinstance(spec, KnnSpec):
        return {"protocol": KNN_PROTOCOL, "departures": {}, **judged}
    assert isinstance(spec, LinearSpec | SemiSupervisedSpec | SvmSpec | DetectionSpec)
    return {"protocol": spec.protocol_name, "departures": spec.departures(), **judged}


def _judge(spec: BackboneJudged, context: Context) -> dict[str, Any] | None:
    # Each one late: none needs what the others import.
    if isinstance(spec, KnnSpec):
        from trainer.evaluation.knn import run_knn

        return run_knn(spec, context)
    if isinstance(spec, SvmSpec):
        from trainer.evaluation.svm import run_svm

        return run_svm(spec, context)
    if isinstance(spec, LinearSpec) and spec.protocol == "cached-features":
        from trainer.evaluation.linear_cached import run_linear_cached

        return run_linear_cached(spec, context)
    if isinstance(spec, LinearSpec):
        from trainer.evaluation.linear import run_linear

        return run_linear(spec, context)
    if isinstance(spec, SemiSupervisedSpec):
        from trainer.evaluation.semi_supervised import run_semi_supervised

        return run_semi_supervised(spec, context)
    from trainer.evaluation.detection.running import run_detection

    assert isinstance(spec, DetectionSpec)
    return run_detection(spec, context)

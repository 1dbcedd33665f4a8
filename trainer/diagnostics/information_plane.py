"""Where backbone and embedding stand between what they hold and what augmentation does to them, as training goes on.

Shape suffixes: n images, d features of the embedding, f of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from trainer.diagnostics.base import BatchDiagnostic, BatchSeen, Diagnosed, Records
from trainer.diagnostics.gaussian_information import FLOOR, QUANTITIES, informations
from trainer.diagnostics.information_picture import PARTS, draw_information_plane

KEPT = "information_plane"
SIGNS = dict(zip(QUANTITIES, ("H(Z)", "H(Z|X)", "I(Z;X)", "I(A;B)"), strict=True))


class InformationPlane(BatchDiagnostic):
    """Records entropies and informations of the batch with each correlation record, and where it is asked for their way
    so far as the picture `information-plane`."""

    name = "information plane"
    metric_names = tuple(f"{quantity}_{part}" for quantity in QUANTITIES for part in PARTS)
    picture_keys = ("information-plane",)
    every_rank = True
    """They hold the same batch, and the way that the checkpoint keeps is to be the same."""

    def __init__(self, run: Diagnosed) -> None:
        self._plan = run.plan
        self._context = run.context
        self._drawn = run.spec.run.record.information_plane
        self._most = run.spec.run.record.information_directions
        self._way: list[dict[str, float]] = []
        self._told = False

    @classmethod
    def of(cls, run: Diagnosed) -> Self:
        return cls(run)

    def due(self, step: int) -> bool:
        return bool(self._plan.correlations_due(step))

    def state_dict(self) -> dict[str, Any]:
        return {KEPT: self._way}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self._way = list(saved.get(KEPT, []))  # versions before this one saved none

    def observe(self, seen: BatchSeen, records: Records) -> None:
        """Look at both; at nothing of a step whose embeddings are not finite."""
        views = {"backbone": (seen.features_a_nf, seen.features_b_nf), "embedding": (seen.z_a_nd, seen.z_b_nd)}
        if not all(bool(view.isfinite().all()) for pair in views.values() for view in pair):
            return
        found: dict[str, float] = {}
        said, short = [], []
        for part, pair in views.items():
            self._context.working(self.name)
            values = informations(*pair, self._most)
            found |= {f"{quantity}_{part}": value for quantity, value in values.items()}
            directions = min(pair[0].shape[1], self._most)
            if len(values) < len(QUANTITIES):
                short.append(f"{directions} directions of the {part}")
            if values:
                told = ", ".join(f"{SIGNS[quantity]} {value:.4g}" for quantity, value in values.items())
                said.append(f"{part} {told} ({directions} of {pair[0].shape[1]:,} directions)")
        if short:
            self._tell_once(short, len(seen.z_a_nd))
        for step in self._plan.correlations_due(seen.step):
            if not found:
                continue
            self._way.append({"step": step, **found})
            records.at(step).metrics(found)
            if self._drawn:
                records.at(step).picture("information-plane", partial(draw_information_plane, way=self._way))
            self._context.say(
                f"information at step {step}, in nats, as if features were normal, with noise of variance {FLOOR:g}: "
                + "; ".join(said)
            )

    def _tell_once(self, short: list[str], images: int) -> None:
        if self._told:
            return
        self._told = True
        said = (
            f"a batch of {images:,} images does not show all of the information plane of {' and '.join(short)}: "
            "entropies take 2 images more than directions, I(A;B) 2 more than twice as many; raise batch_size, or "
            "lower run.record.information_directions"
        )
        (self._context.warn if self._drawn else self._context.say)(said)

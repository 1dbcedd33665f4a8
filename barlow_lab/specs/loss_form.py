"""Which of its three exact forms the Barlow Twins loss takes: by the batch, the width, the ranks and the memory.

The forms are the same function of the embeddings (trainer.objectives.products) and differ in cost and in rounding:

- `direct`: C (d, d) whole on every rank.
- `dual`: |C|^2 = <Za Za^T, Zb Zb^T> with N^2 in the place of d^2 numbers: 8 N^2 d in the place of 6 N d^2 operations
  (multiply and add) for the loss and its gradient, 0.75 d / N times fewer.
- `sharded`: C in shards of rows, one after another: the direct form's operations and bytes sent, in less memory.

The dual's sum over i != j is a difference, |C|^2 - sum C_ii^2. As rank C <= N - 1, |C|^2 >= (tr C)^2 / (N - 1): at a
good diagonal the second is at most N / d of the first, and below N = 0.75 d the difference loses two bits at most.
Above, it vanishes as C nears the identity, and its digits in float32 with it. At that line the operations
are equal, too.

Tests: tests/specs/test_specs_loss_form.py; for both sides of the line
tests/trainer/objectives/test_objectives_precision.py.
"""

from __future__ import annotations

from typing import Literal

LossForm = Literal["direct", "dual", "sharded"]
LossFormOrAuto = Literal["auto", "direct", "dual", "sharded"]

DUAL_BELOW = 0.75
"""The dual form is for N < DUAL_BELOW * d."""

BUDGET = 2**30
"""Numbers that a form may hold beside the embeddings: 4 GiB of float32, a twentieth of an 80 GB card."""

LEAST_SHARDS = 8


def choose_form(samples: int, features: int, ranks: int, budget: int = BUDGET) -> LossForm:
    """The form for `samples` (N, of all ranks) embeddings of `features` (d) on `ranks` ranks.

    The dual where it is exact and fits into `budget` numbers, else the direct form if it fits, else the sharded one.
    """
    if dual_is_exact(samples, features) and numbers_held("dual", samples, features, ranks) <= budget:
        return "dual"
    return "direct" if numbers_held("direct", samples, features, ranks) <= budget else "sharded"


def dual_is_exact(samples: int, features: int) -> bool:
    """Whether the dual form's float32 is no worse than the direct form's."""
    return samples < DUAL_BELOW * features


def numbers_held(form: LossForm, samples: int, features: int, ranks: int) -> int:
    """Most numbers that a rank holds at once beside its embeddings and their gradient."""
    if form == "dual":
        gathered = 2 * samples * features if ranks > 1 else 0
        return gathered + (samples // ranks) ** 2
    return (features if form == "direct" else rows_of_a_shard(features, ranks)) * features


def rows_held(features: int, ranks: int, budget: int = BUDGET) -> int:
    """Rows of a (d, d) matrix that are held at once where there is no dual form: all that fit into `budget` numbers."""
    return features if features * features <= budget else rows_of_a_shard(features, ranks)


def rows_of_a_shard(features: int, ranks: int) -> int:
    """Rows of C in one shard of the sharded form: d / W of them, and no more than d / 8."""
    return -(-features // max(LEAST_SHARDS, ranks))

"""Which form of the loss a run takes, by numbers alone, and what a spec may ask for."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barlow_lab.specs import PretrainSpec, SpecError, digest, parse_spec
from barlow_lab.specs.loss_form import LossForm, choose_form, numbers_held, rows_of_a_shard


@pytest.mark.parametrize(
    ("samples", "features", "ranks", "form"),
    [
        (2048, 8192, 1, "dual"),  # the paper's run
        (2048, 8192, 32, "dual"),
        (6143, 8192, 1, "dual"),
        (6144, 8192, 1, "direct"),  # 0.75 d
        (128, 128, 1, "direct"),  # the demo
        (128, 256, 2, "dual"),  # the digits
        (32768, 32768, 1, "direct"),
        (32768, 32769, 8, "sharded"),  # C no longer fits
        (8192, 65536, 1, "dual"),
        (8192, 65536, 2, "sharded"),  # neither do the gathered embeddings of two ranks
    ],
)
def test_the_form_is_chosen_by_batch_width_ranks_and_memory(
    samples: int, features: int, ranks: int, form: LossForm
) -> None:
    assert choose_form(samples, features, ranks) == form


@given(
    each=st.integers(1, 2**14),
    features=st.integers(2, 2**16),
    ranks=st.integers(1, 64),
    budget=st.integers(1, 2**33),
)
def test_what_is_chosen_is_exact_and_fits_if_anything_does(each: int, features: int, ranks: int, budget: int) -> None:
    samples = each * ranks
    form = choose_form(samples, features, ranks, budget)
    held = {name: numbers_held(name, samples, features, ranks) for name in get_args(LossForm)}
    assert form != "dual" or 4 * samples < 3 * features
    if held[form] > budget:
        assert form == "sharded"
        assert held["sharded"] <= held["direct"]
    assert held["sharded"] <= held["direct"] / min(features, max(8, ranks)) + features, "d^2 / W, but for a whole row"
    assert rows_of_a_shard(features, ranks) * max(8, ranks) >= features


def _spec(form: str, batch_size: int = 64, width: int = 64) -> dict[str, Any]:
    return {
        "kind": "pretrain",
        "data": "digits",
        "batch_size": batch_size,
        "projector": {"widths": [512, width]},
        "objective": {"form": form},
    }


def test_the_dual_form_is_refused_where_it_is_not_exact() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(_spec("dual", 48))
    (fault,) = caught.value.faults
    assert fault.pointer == "/objective/form"
    assert "48 is not below 48; leave it out" in fault.message
    for form, batch_size in (("dual", 47), ("direct", 48), ("sharded", 3), ("auto", 48)):
        spec = parse_spec(_spec(form, batch_size))
        assert isinstance(spec, PretrainSpec)
        assert spec.objective.form == form


def test_an_unknown_form_is_refused_where_it_stands() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(_spec("gram"))
    assert [fault.pointer for fault in caught.value.faults] == ["/objective/form"]


def test_left_out_the_form_is_not_in_the_digest() -> None:
    plain = _spec("auto")
    del plain["objective"]
    assert digest(parse_spec(_spec("auto"))) == digest(parse_spec(plain))
    assert digest(parse_spec(_spec("direct"))) != digest(parse_spec(plain)), "its last bits are others"

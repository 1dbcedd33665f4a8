"""The one policy by which checkpoints are kept."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barlow_lab.specs.common import CheckpointSpec
from barlow_lab.specs.retention import CheckpointPlace, Recorded, retained, superfluous

scores = st.none() | st.floats() | st.sampled_from([1.0, 2.0])  # ties and what is no number among them


@st.composite
def runs(draw):
    """Checkpoints of a run as it wrote them: steps grow within an attempt, and a successor goes on from its last."""
    places = draw(st.lists(st.tuples(st.booleans(), st.booleans(), scores), max_size=25))
    attempt, written = 1, []
    for step, (crash, milestone, score) in enumerate(places, 1):
        attempt += crash
        written.append(Recorded(CheckpointPlace(attempt, step), milestone, score))
    return written


policies = st.builds(
    CheckpointSpec,
    keep_last=st.integers(1, 5),
    best_by=st.sampled_from([None, "loss", "effective_rank"]),
)


@given(runs(), policies)
def test_the_last_and_the_milestones_are_kept_and_one_best_beside_them(run, policy):
    kept = retained(run, policy)
    places = [one.place for one in run]
    last, milestones = places[-policy.keep_last :], {one.place for one in run if one.milestone}
    beside = kept.keys() - {*last, *milestones}
    assert {*last, *milestones} <= kept.keys() <= {*places}
    assert len(beside) <= (policy.best_by is not None)
    assert all(kept[place] == "best" for place in beside)
    assert {place for place, kind in kept.items() if kind == "milestone"} == milestones
    assert [*kept.values()].count("best") <= 1


@given(runs(), policies)
def test_the_best_is_kept(run, policy):
    scored = [one for one in run if one.score is not None and math.isfinite(one.score)]
    if policy.best_by is None or not scored:
        assert "best" not in retained(run, policy).values()
        return
    wanted = (min if policy.best_by == "loss" else max)(one.score for one in scored)
    first = next(one for one in scored if one.score == wanted)
    assert retained(run, policy)[first.place] == ("milestone" if first.milestone else "best")


@given(runs(), policies, st.randoms())
def test_it_depends_on_nothing_else(run, policy, random):
    shuffled = random.sample(run, len(run))
    assert retained(shuffled, policy) == retained(run, policy)


@given(runs(), policies, st.sets(st.integers(0, 25)))
def test_it_does_not_matter_when_the_rest_is_deleted(run, policy, looks):
    there: list[Recorded] = []
    for index, written in enumerate(run):
        there.append(written)
        if index in looks:
            kept = retained(there, policy)
            there = [one for one in there if one.place in kept]
    assert retained(there, policy) == retained(run, policy)


def test_the_direction_is_that_of_the_metric():
    run = [Recorded(CheckpointPlace(1, step), False, score) for step, score in enumerate([2.0, 1.0, 3.0, 2.0], 1)]
    assert retained(run, CheckpointSpec(keep_last=1, best_by="loss")) == {(1, 2): "best", (1, 4): "last"}
    assert retained(run, CheckpointSpec(keep_last=1, best_by="effective_rank")) == {(1, 3): "best", (1, 4): "last"}
    assert retained(run, CheckpointSpec(keep_last=1)) == {(1, 4): "last"}
    assert retained([], CheckpointSpec(best_by="loss")) == {}


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_the_best(score):
    run = [
        Recorded(CheckpointPlace(1, 1), False, score),
        Recorded(CheckpointPlace(1, 2), False, 5.0),
        Recorded(CheckpointPlace(1, 3), False, score),
    ]
    for best_by in ("loss", "effective_rank"):
        assert retained(run, CheckpointSpec(keep_last=1, best_by=best_by)) == {(1, 2): "best", (1, 3): "last"}


def test_what_no_journal_names_is_kept_only_while_it_is_the_newest():
    recorded = [Recorded(CheckpointPlace(1, 3), False, None)]
    killed_before_the_line, passed_over = CheckpointPlace(1, 6), CheckpointPlace(1, 9)
    assert superfluous([killed_before_the_line], recorded) == []
    assert superfluous([killed_before_the_line, passed_over], recorded) == [killed_before_the_line]
    successor = Recorded(CheckpointPlace(2, 4), False, None)
    assert superfluous([killed_before_the_line, passed_over], [*recorded, successor]) == [
        killed_before_the_line,
        passed_over,
    ]
    assert superfluous([CheckpointPlace(1, 3)], []) == []

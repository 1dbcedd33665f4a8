"""Nearest neighbours: exact for any blocks, within the memory that is stated. On several ranks: test_feature_ranks."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
import runs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knn_cases import Case, LiveBytes, case, peak_bytes, places, plain_places

from trainer.evaluation import knn
from trainer.evaluation.features import Features
from trainer.runtime.context import Context
from trainer.runtime.units import Units


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return runs.context(tmp_path_factory.mktemp("run"))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    train=st.integers(1, 40),
    test=st.integers(1, 13),
    k=st.integers(1, 40),
    temperature=st.sampled_from([0.07, 0.1, 1.0]),
    ties=st.booleans(),
    block_values=st.integers(1, 3000),
    bank_rows=st.integers(1, 50),
)
def test_every_place_is_the_one_of_whole_numbers_for_any_blocks(
    context: Context, seed: int, train: int, test: int, k: int, temperature: float, ties: bool,
    block_values: int, bank_rows: int,
) -> None:  # fmt: skip
    one = case(seed, train=train, test=test, k=min(k, train), temperature=temperature, ties=ties)
    with mock.patch.multiple(knn, BLOCK_VALUES=block_values, BANK_ROWS=bank_rows):
        assert places(one, context).tolist() == plain_places(one)


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.07), (20, 0.1), (200, 0.07), (200, 0.1)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_published_numbers_of_neighbours(context: Context, k: int, temperature: float, ties: bool) -> None:
    one = case(3, train=500, test=25, k=k, temperature=temperature, ties=ties)
    with mock.patch.multiple(knn, BLOCK_VALUES=4000, BANK_ROWS=64):
        assert places(one, context).tolist() == plain_places(one)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 40))
def test_it_chooses_what_features_in_float64_choose(seed: int, k: int) -> None:
    """The grid moves a similarity by less than 1e-6, so no image is chosen before one that is nearer by more."""
    one = case(seed, train=40, test=9, k=k, temperature=1.0, ties=False, width=64)
    bank, queries = (values.double().numpy() for values in (one.train, one.test))
    exact = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (bank / np.linalg.norm(bank, axis=1)[:, None]).T
    similarities, rows = knn.nearest_of_share(one.train, one.test, k, 8, mock.Mock(spec=Units), "neighbours")
    chosen = np.take_along_axis(exact, rows.numpy(), axis=1)
    np.testing.assert_allclose(similarities.numpy(), chosen, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.sort(chosen), np.sort(exact)[:, -k:], rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.sampled_from([1, 3, 100, 2048]), scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_similarities_are_exact_in_any_order(seed: int, width: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(
        rng.normal(size=(6, width)) * rng.choice([0.0, 1e-3, 1.0], size=(6, width)) * scale
    ).float()
    values = knn.unit_rows(values).float()
    whole = (values.double() * 2**26).tolist()
    exact = [[sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) for y in whole] for x in whole]
    assert all(x == int(x) for row in whole for x in row), "on the grid"
    assert max(abs(x) for row in exact for x in row) < 2**53
    order = torch.from_numpy(rng.permutation(width))
    for columns in (torch.arange(width), order):
        wide = values[:, columns].double()
        assert ((wide @ wide.T) * 2**52).tolist() == exact
    lengths = (values.double() ** 2).sum(dim=1).sqrt()
    assert all(length == 0 or math.isclose(length, 1, abs_tol=1e-5) for length in lengths.tolist())


def test_who_looks_after_it_sees_the_features_that_it_saw(context: Context) -> None:
    one = case(7, train=30, test=8, k=4, temperature=0.1, ties=False)
    train, test = Features(one.train, torch.arange(30), 30), Features(one.test, torch.arange(8), 8)
    before = one.train.clone(), one.test.clone()
    for _ in range(2):
        knn.true_places(
            train, one.train_labels, test, one.test_labels,
            k=4, temperature=0.1, classes=one.classes, phase="neighbours", context=context, units=Units(context),
        )  # fmt: skip
        assert torch.equal(train.values, before[0])
        assert torch.equal(test.values, before[1])


def test_the_counter_counts() -> None:
    before = torch.zeros(1000)
    with LiveBytes() as counted:
        a = before[10:].add(1)
        b = a.view(-1, 10)[3:]
        del a
        assert counted.live == 990 * 4, "the view holds it"
        del b
        assert (counted.live, counted.peak) == (0, 990 * 4)


def peak_of(one: Case, context: Context, block_values: int) -> int:
    with mock.patch.object(knn, "BLOCK_VALUES", block_values):
        return peak_bytes(one, context)


@pytest.mark.parametrize(("width", "k"), [(64, 20), (64, 200), (1000, 20), (7, 1)])
def test_the_memory_of_the_search_is_bounded_however_many_images_there_are(
    context: Context, width: int, k: int
) -> None:
    block_values = 2**16
    small, large = (
        case(1, train=count, test=count // 10, k=k, temperature=0.07, ties=False, width=width) for count in (1000, 4000)
    )
    stated = knn.PEAK_BYTES * block_values // knn.BLOCK_VALUES
    assert peak_of(small, context, block_values) <= stated
    assert stated / 10 < peak_of(large, context, block_values) <= stated


def test_each_tensor_of_a_block_is_within_the_stated_numbers() -> None:
    for width in (1, 128, 2048, 8192, 150_528, 10**6):
        for k in (1, 20, 200, 1000):
            for classes in (2, 1000, 8142):
                for ranks in (1, 8, 64):
                    queries, bank = knn.block_rows(width, k, classes, ranks)
                    assert 1 <= bank <= knn.BANK_ROWS
                    assert queries >= 1
                    numbers = (bank * width, ranks * queries * max(width, bank + k, ranks * k, classes))
                    assert queries == 1 or max(numbers) <= knn.BLOCK_VALUES
    assert knn.block_rows(2048, 200, 1000, 1)[0] > 500, "of ImageNet enough queries for a product to be worth it"


def test_labels_follow_the_images_that_could_be_read(context: Context) -> None:
    one = case(5, train=30, test=8, k=4, temperature=0.1, ties=True)
    kept = torch.tensor([i for i in range(30) if i % 3])
    found = knn.true_places(
        Features(one.train[kept].clone(), kept, len(kept), 10), one.train_labels,
        Features(one.test.clone(), torch.arange(8), 8), one.test_labels,
        k=4, temperature=0.1, classes=one.classes, phase="neighbours", context=context, units=Units(context),
    )  # fmt: skip
    less = Case(one.train[kept], one.train_labels[kept], one.test, one.test_labels, 4, 0.1, one.classes)
    assert found.tolist() == plain_places(less)

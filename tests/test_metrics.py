"""Agreement with labels, distances of sets, strokes and ranks, on cases whose value is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import sqrtm

from common.augment import slant
from common.data import drawn, to_float
from common.look import metrics
from tests.test_augment import bar

LABELS = torch.arange(10).repeat(30)
SHUFFLED = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
MERGED = torch.where(LABELS == 1, 0, LABELS)  # 0 and 1 share category 0
TEN, FIVE, NINE = math.log(10), math.log(5), math.log(10) - 0.2 * math.log(2)  # entropies
TABLES = arrays(np.int64, st.tuples(st.integers(2, 10), st.just(10)), elements=st.integers(0, 400)).filter(np.any)


def row(d_real: float = 0.7, d_fake: float = 0.3, **shares: float) -> dict[str, float]:
    return {"d_real": d_real, "d_fake": d_fake, **dict.fromkeys(metrics.SHARES, 0.1), **shares}


EVEN = torch.full((10,), 0.1)
WON, BLIND, ONES, UNCOUNTED = row(0.995, 0.004), row(0.999, 0.999), row(digit_1=0.6), {"d_real": 0.7, "d_fake": 0.3}


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (metrics.contingency, ([0, 0, 2, 2, 2], [1, 1, 0, 2, 0], 3), [[0, 2, 0], [0, 0, 0], [2, 0, 1]]),
        (metrics.class_total_variation, ([0.1] * 10, [0.1] * 10), 0),
        (metrics.class_total_variation, ([1.0] + [0.0] * 9, [0.1] * 10), 0.9),
        (metrics.class_total_variation, ([1.0, 0.0], [0.0, 1.0]), 1),
        (metrics.rank_correlation, ([1, 2, 3, 4], [10, 20, 30, 1000]), 1),
        (metrics.rank_correlation, ([1, 2, 3, 4], [4, 3, 2, 1]), -1),
        (metrics.rank_correlation, ([1, 2, 3, 4], [2, 1, 4, 3]), 0.6),
        (metrics.rank_correlation, ([1, 2, 3], [5, 5, 5]), 0),
        (metrics.rank_correlation, ([1], [2]), 0),
    ],
)
def test_known_values(function, arguments, expected):
    found = function(*map(torch.tensor, arguments[:2]), *arguments[2:])
    assert np.asarray(found) == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    ("categories", "labels", "one_to_one", "majority", "information"),
    [
        (LABELS, LABELS, 1.0, 1.0, 1.0),
        (SHUFFLED[LABELS], LABELS, 1.0, 1.0, 1.0),
        (0 * LABELS, LABELS, 0.1, 0.1, 0.0),
        (MERGED, LABELS, 0.9, 0.9, 2 * NINE / (TEN + NINE)),
        (LABELS // 2, LABELS, 0.5, 0.5, 2 * FIVE / (TEN + FIVE)),
        (LABELS, LABELS % 5, 0.5, 1.0, 2 * FIVE / (TEN + FIVE)),
        (LABELS, torch.arange(300) // 30, 0.1, 0.1, 0.0),
    ],
    ids=["perfect", "permuted", "constant", "two digits merged", "pairs merged", "every digit split", "independent"],
)
def test_agreement_of_known_codes(categories, labels, one_to_one, majority, information):
    table = metrics.contingency(categories, labels)
    assert metrics.accuracy(table, metrics.one_to_one(table)) == pytest.approx(one_to_one)
    assert metrics.accuracy(table, metrics.majority(table)) == pytest.approx(majority)
    assert metrics.normalised_mutual_information(table) == pytest.approx(information, abs=1e-12)


def test_one_to_one_finds_a_permutation_and_gives_up_a_majority_for_the_better_sum():
    permuted = metrics.one_to_one(metrics.contingency(SHUFFLED[LABELS], LABELS))
    assert permuted[SHUFFLED].tolist() == list(range(10))
    assert metrics.accuracy(metrics.contingency(LABELS, LABELS), permuted) == pytest.approx(0.2)  # fitted elsewhere
    table = np.array([[60, 50, 0], [50, 0, 0], [0, 0, 10]])
    assert metrics.majority(table).tolist() == [0, 0, 2]
    assert metrics.one_to_one(table).tolist() == [1, 0, 2]
    assert metrics.accuracy(table, metrics.one_to_one(table)) == pytest.approx(110 / 170)


@given(TABLES, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_mutual_information_is_that_of_entropies_and_names_do_not_matter(table, random):
    counts = table.sum(axis=1), table.sum(axis=0), table.flatten()
    a, b, both = (sum(-n / table.sum() * math.log(n / table.sum()) for n in part if n) for part in counts)
    expected = 2 * (a + b - both) / (a + b) if a + b > 0 else 0.0
    for one in (table, table[random.sample(range(len(table)), len(table))]):
        assert metrics.normalised_mutual_information(one) == pytest.approx(expected, abs=1e-9)
        assert metrics.accuracy(one, metrics.majority(one)) == metrics.accuracy(table, metrics.majority(table))


@pytest.mark.parametrize("turn", [torch.eye(4), torch.arange(16.0).view(4, 4).cos()])
def test_frechet_distance_of_two_gaussians_against_the_matrix_root(turn):
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5_000, 4, generator=random).double() * torch.tensor([[[1, 2, 3, 1]], [[2, 1, 4, 9]]])
    a, b = a + 1, b @ turn.double()
    cov_a, cov_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + (cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real).trace()
    assert expected > 4
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("measure", "factor", "other", "at_least"),
    [(slant, "slant", "thickness", 0.94), (metrics.thickness, "thickness", "slant", 0.90)],
)
def test_a_measure_ranks_drawn_digits_by_their_true_factor_and_is_blind_to_the_other(measure, factor, other, at_least):
    digits = drawn(train=2000, test=1, seed=5)
    measured, truth = measure(to_float(digits.train_images)), digits.factors[factor][:2000]
    within = [digits.train_labels == digit for digit in range(10)]
    assert min(metrics.rank_correlation(measured[rows], truth[rows]) for rows in within) > at_least
    assert abs(metrics.rank_correlation(measured, digits.factors[other][:2000])) < 0.1
    assert factor != "slant" or (measured - truth).abs().mean() < 0.1, "in its unit, too"


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6])
def test_thickness_of_a_bar_is_twice_its_area_over_its_outline(width):
    for image in (bar(width), bar(width).transpose(2, 3), 0.1 * bar(width)):
        assert metrics.thickness(image).item() == pytest.approx(2 * 20 * width / (2 * (20 + width)), rel=0.05)
    long = bar(width, length=28)  # the longer, the closer to its width
    assert metrics.thickness(bar(width)) < metrics.thickness(long) < 1.2 * metrics.thickness(bar(width))
    assert metrics.thickness(torch.zeros(2, 1, 28, 28)).tolist() == [0, 0]


@pytest.mark.parametrize("rows", [[row()] * 5, [WON] * 2, [WON, WON, row()], [ONES, row(), ONES], [UNCOUNTED] * 3])
def test_a_gan_has_not_collapsed_in_fewer_than_three_rows_in_a_row(rows):
    assert metrics.collapse(rows, EVEN) is None


def test_one_class_of_two_may_have_more_than_half_of_the_samples():
    two = torch.tensor([0.6, 0.4] + [0.0] * 8)
    for share, collapsed in ((0.7, False), (0.85, True)):
        rows = [{"d_real": 0.7, "d_fake": 0.3, "digit_0": share, "digit_1": 1 - share}] * 3
        assert bool(metrics.collapse(rows, two)) == bool(metrics.collapse(rows[:1], two, at_end=True)) == collapsed


@pytest.mark.parametrize(
    ("rows", "said"), [([row(), WON, WON, WON], "stops"), ([BLIND] * 3, "stops"), ([ONES] * 3, "one")]
)
def test_a_gan_has_collapsed_where_three_rows_say_so(rows, said):
    assert said in metrics.collapse(rows, EVEN)

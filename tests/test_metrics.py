"""Agreement with labels on codes whose scores are known, and strokes whose slant and width are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from common import metrics
from common.data import drawn, to_float
from infogan import measure_codes

LABELS = torch.arange(10).repeat(30)
SHUFFLED = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
MERGED = LABELS.clone().index_fill_(0, torch.nonzero(LABELS == 1).flatten(), 0)  # 0 and 1 share category 0
ENTROPY_MERGED = math.log(10) - 0.2 * math.log(2)


# Agreement with labels ------------------------------------------------------------------------------------------


def test_contingency_counts_category_by_row_and_label_by_column():
    table = metrics.contingency(torch.tensor([0, 0, 2, 2, 2]), torch.tensor([1, 1, 0, 2, 0]), k=3)
    assert table.tolist() == [[0, 2, 0], [0, 0, 0], [2, 0, 1]]


@pytest.mark.parametrize(
    ("categories", "one_to_one", "majority", "information"),
    [
        (LABELS, 1.0, 1.0, 1.0),
        (SHUFFLED[LABELS], 1.0, 1.0, 1.0),
        (torch.zeros(300, dtype=torch.long), 0.1, 0.1, 0.0),
        (MERGED, 0.9, 0.9, 2 * ENTROPY_MERGED / (math.log(10) + ENTROPY_MERGED)),
        (LABELS // 2, 0.5, 0.5, 2 * math.log(5) / (math.log(10) + math.log(5))),
    ],
    ids=["perfect", "permuted", "constant", "two digits in one category", "every category holds two digits"],
)
def test_agreement_of_known_codes(categories, one_to_one, majority, information):
    table = metrics.contingency(categories, LABELS)
    assert metrics.accuracy(table, metrics.one_to_one(table)) == pytest.approx(one_to_one)
    assert metrics.accuracy(table, metrics.majority(table)) == pytest.approx(majority)
    assert metrics.normalised_mutual_information(table) == pytest.approx(information, abs=1e-12)


def test_a_digit_split_in_two_categories_counts_half_one_to_one_and_whole_by_majority():
    labels = torch.arange(5).repeat(20)
    categories = labels + 5 * (torch.arange(100) < 50)
    table = metrics.contingency(categories, labels)
    assert metrics.accuracy(table, metrics.one_to_one(table)) == pytest.approx(0.5)
    assert metrics.accuracy(table, metrics.majority(table)) == pytest.approx(1.0)
    assert metrics.normalised_mutual_information(table) == pytest.approx(
        2 * math.log(5) / (math.log(5) + math.log(10)), abs=1e-12
    )


def test_independent_codes_share_no_information():
    assert metrics.normalised_mutual_information(np.full((10, 10), 7)) == pytest.approx(0, abs=1e-12)


def test_the_permuted_map_is_found():
    table = metrics.contingency(SHUFFLED[LABELS], LABELS)
    assert torch.equal(torch.from_numpy(metrics.one_to_one(table))[SHUFFLED], torch.arange(10))


def test_one_to_one_gives_up_a_majority_for_the_better_sum():
    table = np.array([[60, 50, 0], [50, 0, 0], [0, 0, 10]])
    assert metrics.majority(table).tolist() == [0, 0, 2]
    assert metrics.one_to_one(table).tolist() == [1, 0, 2]
    assert metrics.accuracy(table, metrics.one_to_one(table)) == pytest.approx(110 / 170)


def test_accuracy_keeps_a_map_that_was_fitted_elsewhere():
    fitted = metrics.one_to_one(metrics.contingency(SHUFFLED[LABELS], LABELS))
    assert metrics.accuracy(metrics.contingency(LABELS, LABELS), fitted) == pytest.approx(0.2)


def mutual_information_by_entropies(table: np.ndarray) -> float:
    """2 (H(a) + H(b) - H(a, b)) / (H(a) + H(b)) from counts, term by term."""

    def entropy(counts: list[int]) -> float:
        total = sum(counts)
        return sum(-n / total * math.log(n / total) for n in counts if n)

    both = entropy([int(n) for n in table.flatten()])
    a, b = entropy(table.sum(axis=1).tolist()), entropy(table.sum(axis=0).tolist())
    return 2 * (a + b - both) / (a + b) if a + b > 0 else 0.0


TABLES = arrays(np.int64, st.tuples(st.integers(2, 10), st.just(10)), elements=st.integers(0, 400)).filter(np.any)


@given(TABLES)
@settings(max_examples=200, deadline=None)
def test_mutual_information_is_that_of_another_formula(table):
    found = metrics.normalised_mutual_information(table)
    assert found == pytest.approx(mutual_information_by_entropies(table), abs=1e-9)
    assert -1e-9 <= found <= 1 + 1e-9


@given(TABLES, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_names_of_categories_do_not_matter(table, random):
    order = list(range(len(table)))
    random.shuffle(order)
    renamed = table[order]
    assert metrics.normalised_mutual_information(renamed) == pytest.approx(
        metrics.normalised_mutual_information(table), abs=1e-9
    )
    assert metrics.accuracy(renamed, metrics.majority(renamed)) == metrics.accuracy(table, metrics.majority(table))


# Strokes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return drawn(train=4000, test=1, seed=5)


@pytest.mark.parametrize(("factor", "at_least"), [("slant", 0.94), ("thickness", 0.90)])
def test_measured_strokes_rank_drawn_digits_by_their_true_factor(digits, factor, at_least):
    measured = getattr(metrics, factor)(to_float(digits.train_images))
    truth = digits.factors[factor][:4000]
    within = [digits.train_labels == digit for digit in range(10)]
    found = [metrics.rank_correlation(measured[rows], truth[rows]) for rows in within]
    assert min(found) > at_least, found


def test_measured_slant_is_the_true_shear_in_units_too(digits):
    error = metrics.slant(to_float(digits.train_images)) - digits.factors["slant"][:4000]
    assert error.abs().mean() < 0.1


@pytest.mark.parametrize(("factor", "other"), [("slant", "thickness"), ("thickness", "slant")])
def test_a_measure_is_blind_to_the_other_factor(digits, factor, other):
    measured = getattr(metrics, factor)(to_float(digits.train_images))
    assert abs(metrics.rank_correlation(measured, digits.factors[other][:4000])) < 0.1


def bar(width: float, length: int = 20, shear: float = 0.0) -> Tensor:
    """An upright stroke (1, 1, 28, 28) with smooth edges; a positive shear moves its top to the right.

    An odd width is centred on a pixel, an even one between two, so that whole widths have sharp edges.
    """
    x, y = torch.arange(28) - (14 if width % 2 == 1 else 13.5), torch.arange(28) - 13.5
    across = (width / 2 + 0.5 - (x[None, :] + shear * y[:, None]).abs()).clamp(0, 1)
    along = (length / 2 + 0.5 - y.abs()).clamp(0, 1)
    return (across * along[:, None])[None, None]


@pytest.mark.parametrize("shear", [-0.5, -0.2, 0.0, 0.3, 0.6])
def test_slant_is_the_shear_of_a_bar_positive_to_the_right(shear):
    assert metrics.slant(bar(3, shear=shear)).item() == pytest.approx(shear, abs=0.03)


def test_slant_sees_neither_place_nor_brightness():
    leaning = bar(3, length=16, shear=0.4)
    expected = metrics.slant(leaning).item()
    assert metrics.slant(leaning.roll((3, -2), dims=(2, 3))).item() == pytest.approx(expected, abs=1e-4)
    assert metrics.slant(0.3 * leaning).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("turned", [False, True])
def test_thickness_of_a_bar_is_twice_its_area_over_its_outline(width, turned):
    image = bar(width).transpose(2, 3) if turned else bar(width)
    expected = 2 * (20 * width) / (2 * (20 + width))
    assert metrics.thickness(image).item() == pytest.approx(expected, rel=0.05)


def test_thickness_of_long_bars_is_their_width():
    found = [metrics.thickness(bar(width, length=28)).item() for width in (1, 2, 3)]
    assert found == pytest.approx([1, 2, 3], rel=0.1)


def test_thickness_grows_with_the_width():
    found = [metrics.thickness(bar(width)).item() for width in (1, 2, 3, 4, 5, 6)]
    assert found == sorted(found)
    assert found[-1] > 4 * found[0]


@pytest.mark.parametrize("brightness", [0.1, 0.5, 0.9])
def test_thickness_does_not_see_brightness(brightness):
    images = to_float(drawn(train=50, test=1).train_images)
    torch.testing.assert_close(metrics.thickness(brightness * images), metrics.thickness(images))


def test_a_longer_stroke_of_the_same_width_is_hardly_thicker():
    short, long = metrics.thickness(bar(3, length=12)).item(), metrics.thickness(bar(3, length=24)).item()
    assert 2 * bar(3, length=12).sum().item() == pytest.approx(bar(3, length=24).sum().item())
    assert long < 1.2 * short


@pytest.mark.parametrize("measure", [metrics.slant, metrics.thickness])
def test_an_empty_image_has_a_finite_measure(measure):
    assert measure(torch.zeros(2, 1, 28, 28)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 1000.0], 1.0),
        ([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], -1.0),
        ([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0], 0.6),
        ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], 0.0),
        ([1.0], [2.0], 0.0),
    ],
)
def test_rank_correlation(a, b, expected):
    assert metrics.rank_correlation(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected)


class Draughtsman(nn.Module):
    """Draws bars whose thickness follows c2 and whose slant follows minus c3."""

    def forward(self, latent: Tensor) -> Tensor:
        return torch.cat([bar(4 + 2 * c2, shear=-0.5 * c3) for c2, c3 in latent[:, -2:].tolist()])


def test_the_report_says_what_each_code_does_and_in_which_direction():
    found = measure_codes(Draughtsman(), 3, torch.Generator().manual_seed(0))
    assert found["c2_thickness_rank_correlation"] > 0.95
    assert found["c3_slant_rank_correlation"] < -0.95
    assert abs(found["c2_slant_rank_correlation"]) < 0.2
    assert abs(found["c3_thickness_rank_correlation"]) < 0.2
    assert found["c2"].startswith("thickness (0.9")
    assert found["c3"].startswith(("slant (0.9", "slant (1.0"))

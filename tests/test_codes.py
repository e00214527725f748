"""What the codes do, measured and shown, on a model that draws bars and reads what stands in a pixel."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from common.data import DIGITS, Dataset
from common.look import codes, figures, metrics, plots
from tests.test_augment import bar
from tests.test_metrics import SHUFFLED

NUMBERS = {"c2_slant_rank_correlation": -0.684, "c2_thickness_rank_correlation": 0.1}
NUMBERS |= {"c3_slant_rank_correlation": 0.2, "c3_thickness_rank_correlation": 0.6}


class Draughtsman:
    """Draws bars that c2 makes thick and c3 slants to the left, by as much as `lean` says for their category. Reads the
    category of an image from its first pixel."""

    digit_of_category = SHUFFLED

    def __init__(self, lean: Tensor | None = None):
        self.lean = lean

    def generate(self, n: int, category: Tensor, c2: Tensor, c3: Tensor, noise: Tensor) -> Tensor:
        shears = -0.5 * c3 * self.lean[category]
        return torch.cat([bar(4 + 2 * a, shear=b) for a, b in zip(c2.tolist(), shears.tolist(), strict=True)])

    def encode(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(c1=torch.eye(10)[(x[:, 0, 0, 0] * 255).round().long()])


@pytest.fixture
def run(tmp_path, tiny):
    return SimpleNamespace(folder=tmp_path, data=tiny, title="a run", epoch=7, when="epoch 7", rows=[{"accuracy": 0.5}])


@pytest.fixture
def saved(monkeypatch):
    """What the functions that write a picture are called with."""
    calls = []
    for room, name in ((figures, "save_grid"), (plots, "save_figure"), (plots, "save_confusion")):
        monkeypatch.setattr(room, name, lambda path, *call: calls.append((path.name, *call)))
    return calls


@pytest.mark.parametrize("lean", [torch.ones(10), torch.tensor([1.0, -1.0] * 5)])
def test_each_code_is_measured_with_its_direction_and_none_where_half_of_the_digits_go_the_other_way(monkeypatch, lean):
    monkeypatch.setattr(codes, "PER_CATEGORY", 60)
    random = torch.Generator().manual_seed(0)
    found = codes.measure(Draughtsman(lean), torch.zeros(600, 62), torch.rand(600, 2, generator=random) * 2 - 1)
    assert found["c2_thickness_rank_correlation"] > 0.95
    assert found["c3_slant_rank_correlation"] == pytest.approx(-lean.mean().item(), abs=0.05)
    assert abs(found["c2_slant_rank_correlation"]) < 0.2
    assert abs(found["c3_thickness_rank_correlation"]) < 0.2


def test_the_typical_noise_is_the_one_whose_images_are_nearest_to_the_mean():
    sizes = torch.tensor([[0.0], [1.0], [0.4]])
    model = SimpleNamespace(generate=lambda n, noise, **rest: noise.view(n, 1, 1, 1).expand(n, 1, 28, 28))
    assert codes.typical(model, sizes) == 2


def test_tables_count_what_q_reads_of_the_first_training_images_and_the_test_images(monkeypatch):
    monkeypatch.setattr(codes, "LABELLED", 30)
    category = torch.arange(50) % 10
    images = category.byte()[:, None, None].expand(-1, 28, 28)
    data = Dataset("mnist", images, (category + 1) % 10, images[:20], category[:20])
    tables = codes.contingencies(Draughtsman(), data)
    assert (tables.train == 3 * np.roll(np.eye(10), 1, axis=1)).all()
    assert (tables.test == 2 * np.eye(10)).all()
    assert codes.contingencies(Draughtsman(), dataclasses.replace(data, classes=())) is None


def test_pictures_say_what_their_rows_and_columns_are_and_what_each_code_does(run, saved):
    sheets = dict.fromkeys(codes.SHEETS, torch.full((10, 9, 28, 28), 0.5))
    codes.draw_sheets(run, Draughtsman(), sheets)
    codes.draw_codes(run, sheets, NUMBERS)
    *sheets, (name, figure) = saved
    for (sheet, _, title, rows, columns, keys), (code, what) in zip(sheets, codes.SHEETS.items(), strict=True):
        said = f"a run, epoch 7, c1 right on 50.0% of the test images\n{what}"
        assert (sheet, title, rows) == (f"epoch_007_{code}.png", said, list(DIGITS))
        assert [SHUFFLED[category] for category in keys] == list(range(10))
        assert " ".join(columns) == ("" if code == "c1" else "-2 -1.5 -1 -0.5 0 0.5 1 1.5 2")
    titles = ["c1: the category", "c2: slant", "c3: thickness"]
    assert (name, [axes.get_title() for axes in figure.axes]) == ("codes.png", titles)
    page = figure.axes[1].images[0].get_array()
    assert (page.shape, set(page.ravel().tolist())) == ((300, 270), {0.5, 1})


def test_agreement_with_labels_is_that_of_the_test_images_under_the_map_of_the_training_images(run, saved):
    table = np.zeros((10, 10), dtype=int)
    table[np.arange(10), SHUFFLED] = 9
    table[0, 7] = 10  # the majority of category 0, but 7 is category 9's
    found = codes.compare_with_labels(run, Draughtsman(), codes.Tables(train=table, test=table))
    assert (found["accuracy"], found["accuracy_majority_map"]) == (0.9, pytest.approx(0.91))
    assert found["normalised_mutual_information"] == metrics.normalised_mutual_information(table)
    assert found["classes"] == ", ".join(DIGITS)
    [(name, shown, _, rows, columns, _)] = saved
    assert (name, shown.diagonal().tolist()) == ("confusion.png", [9] * 10)
    assert (rows[0], rows[3], columns) == ("category 3 (mostly 0)", "category 0 (mostly 3)", DIGITS)


@pytest.mark.parametrize(
    ("classes", "rest"),
    [(DIGITS, []), (("cat", "dog"), ["no class"] * 8), ((), [f"category {row}" for row in range(10)])],
)
def test_the_page_names_the_classes_and_what_a_code_follows_in_either_direction(run, classes, rest):
    run.data = dataclasses.replace(run.data, classes=classes)
    about = codes.about_page(run, Draughtsman(), NUMBERS, 0.75 if classes else None)
    said = "; c1 names the right class for 75.0% of the test images" if classes else ""
    assert (about["title"], about["subtitle"]) == ("a run", f"after 7 epochs{said}")
    assert about["kind"] == ("digit" if classes == DIGITS else "class")
    assert [name for name, _ in about["picks"]] == codes.row_names(run.data) == [*classes, *rest]
    assert [SHUFFLED[category] for _, category in about["picks"]] == list(range(10))
    for code, factor, note in (("c2", "slant", "−0.68"), ("c3", "thickness", "+0.60")):
        [found] = [found for found in about["codes"] if found["name"] == code]
        assert found["does"] == factor
        assert f"{factor} {note}" in found["note"]


@pytest.mark.parametrize(
    ("slant", "thickness", "said"),
    [(0.9, 0.1, "slant"), (-0.31, 0.4, "slant + thickness"), (0.29, -0.29, "unclear"), (0.0, -0.3, "thickness")],
)
def test_a_code_is_named_by_what_it_clearly_follows(slant, thickness, said):
    numbers = {"c2_slant_rank_correlation": slant, "c2_thickness_rank_correlation": thickness}
    assert codes.meaning(numbers, "c2") == said
    report = {**NUMBERS, **numbers, "info_c1_nats": 2.2925, "info_c1_maximum_nats": 2.3026, "drawn_as_meant": None}
    lines = codes.told(report)
    assert (list(lines), lines["L_I(c1)"]) == (["c2", "c3", "L_I(c1)"], "2.292 of 2.303 nats")
    assert lines["c2"].startswith(f"{said} (")

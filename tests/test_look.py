"""Pictures and numbers: what pixels and files hold, metrics of known value, the classifier and what it scores."""

import dataclasses
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from common import BadInput
from common.data import render_digits, to_float
from common.look import figures, fonts, gan, metrics, plots, scorer
from common.look.fonts import display_names
from common.look.scorer import SampleScorer, load_classifier
from common.run.checkpoint import write_checkpoint
from tests.helpers import Heard

ROWS = [{"epoch": epoch, "loss": 1 / epoch, "tiny": 10.0**-epoch, "none": 0.0} for epoch in range(1, 4)]
LONG, SHORT = ("T-shirt", "trouser"), ("0", "1")


@pytest.fixture
def saved(monkeypatch):
    """What would be written: matplotlib's figures, and the calls of `save_grid`."""
    kept = []
    monkeypatch.setattr(plots, "save_figure", lambda path, figure, *_, **__: kept.append(figure))
    monkeypatch.setattr(figures, "save_grid", lambda path, *call: kept.append((path.name, *call)))
    return kept


@pytest.fixture
def run(tmp_path, tiny):
    place = {"epoch": 3, "epochs": 3, "headline": "a run after 3 epochs", "plot_due": lambda: True, "say": print}
    return SimpleNamespace(folder=tmp_path, data=tiny, title="a run", rows=ROWS, **place)


# Grids and animations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [((), ()), (("upper row", "lower row"), ("a", "b", "c"))])
def test_a_grid_has_the_grey_values_as_they_are_clipped_and_never_stretched(tmp_path, labels):
    greys = torch.tensor([[-1.0, 0.3, 0.25], [0.5, 0.4, 3.0]])
    figures.save_grid(tmp_path / "grid.png", greys[:, :, None, None].expand(-1, -1, 28, 28), "a\ntitle", *labels)
    with Image.open(tmp_path / "grid.png") as picture:
        page = np.array(picture)
    top, left = page.shape[0] - 8 - 2 * 58, page.shape[1] - 10 - 3 * 58
    for (row, column), grey in np.ndenumerate(np.array([[0, 76, 64], [128, 102, 255]])):
        assert (page[top + 58 * row :, left + 58 * column :][:56, :56] == grey).all()
    assert (page[:top] < 128).any(), "no title"
    assert (left > 12) is bool(labels[0])


@pytest.mark.parametrize("classes", [("a very long name", "1"), ()])
def test_reals_are_ten_of_each_class_or_the_first_hundred_and_black_if_too_few(saved, run, tiny, classes, capsys):
    few = {"train_images": tiny.train_images[:97], "train_labels": tiny.train_labels[:97]}
    run.data = dataclasses.replace(tiny, classes=classes, **few)
    figures.save_reals(run)
    x, labels = torch.cat((few["train_images"], torch.zeros(3, 28, 28))), few["train_labels"]
    rows = [x[:97][labels == row][:10] for row in range(2)] if classes else x.split(10)
    assert torch.equal(saved[0][1], torch.stack(list(rows)) / 255)
    assert "number them" not in capsys.readouterr().out
    assert saved[0][2:] == (f"{tiny.title}: training images", ("a very long…", "1") if classes else ())


@pytest.mark.parametrize(("count", "frames"), [(201, 60), (13, 13)])
def test_an_animation_has_every_epoch_of_one_sheet_or_sixty_from_the_first_to_the_last(tmp_path, count, frames):
    random, shown = np.random.default_rng(0), []
    for i in range(count):
        grey = random.integers(0, 256, (40, 40), dtype=np.uint8)
        grey[:20] = i  # tells which epoch a frame is
        Image.fromarray(grey).save(tmp_path / f"epoch_{990 + i:03d}_c1.png")  # epoch 1000 comes after epoch 999
        Image.new("L", (9, 9), 255).save(tmp_path / f"epoch_{990 + i:03d}_c2.png")
    figures.save_animation(SimpleNamespace(folder=tmp_path), "_c1")
    with Image.open(tmp_path / "training.gif") as animation:
        for k in range(animation.n_frames):
            animation.seek(k)
            shown.append(animation.convert("L").getpixel((5, 5)))
        assert (animation.info["loop"], animation.info["duration"]) == (0, 2000)  # of the last frame
    assert (len(shown), shown) == (frames, sorted(shown))
    assert (shown[0], shown[-1]) == (0, round((count - 1) / 17) * 17)


def test_a_sweep_shows_its_images_in_rows_of_five_for_each_code_in_turn(tmp_path):
    sweep = torch.zeros(2, 7, 28, 28)
    sweep[1, 6] = 1  # the second of the second row
    figures.save_sweep(tmp_path / "codes.gif", {"c2": sweep, "c3": 1 - sweep})
    shown = []
    with Image.open(tmp_path / "codes.gif") as animation:
        for k in range(animation.n_frames):
            animation.seek(k)
            page = np.array(animation.convert("L"))[28:]
            shown.append(page.reshape(2, 84, 5, 84).mean(axis=(1, 3)) > 128)
        assert (animation.info["loop"], animation.info["duration"]) == (0, 1200)
    assert [int(page.sum()) for page in shown] == [0, 1, 7, 6]
    assert (shown[1][1, 1], shown[3][1, 1]) == (True, False)


NAMES = {
    "long": (("a slim one of them", "other"), ("a slim one …", "other")),
    "with other ends": ((*"n", *(f"handwritten_{i}" for i in (0, 10))), ("n", "handwritt…_0", "handwritt…10")),
    "with other middles": ([f"pictures_of_{x}_in_my_house" for x in ("cat", "dog")], ("…cat_in_my_…", "…dog_in_my_…")),
    "too much alike": ((f"{'a' * 15}X{'b' * 15}", f"{'a' * 15}Y{'b' * 15}", "c"), ("1", "2", "3")),
    "without a font": (("2", "\U00013000"), ("1", "2")),
}


@pytest.mark.parametrize(("classes", "shown"), NAMES.values(), ids=NAMES)
def test_class_names_are_cut_but_stay_different_and_are_numbers_without_a_font(classes, shown):
    assert display_names(classes) == shown


def test_an_installed_font_shows_what_dejavu_lacks(monkeypatch, tmp_path):
    """STIX stands for an installed font; a damaged one is passed over."""
    damaged, installed = tmp_path / "a.ttf", tmp_path / "b.ttf"
    damaged.write_bytes(b"no font")
    shutil.copy(fonts.font_file("STIXGeneral"), installed)
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(installed), str(damaged)])
    assert (fonts.covering("an ⌒"), fonts.families("an ⌒")[1:]) == (str(installed), ["STIXGeneral"])


# Plots ------------------------------------------------------------------------------------------------------------


def test_curves_have_a_panel_per_entry_and_a_line_per_column_that_was_measured_and_are_saved_when_due(saved, run):
    panels = {"no": ["accuracy"], "a": ["loss", "tiny", "other"], "b": ["tiny"]}
    plots.save_curves(run, panels, names={"loss": "sandal"}, reference={"a": (0.5, "optimum"), "no": (1, "none")})
    [figure] = saved
    labels = {axes.get_title(): {text.get_text() for text in axes.texts} for axes in figure.axes}
    assert labels == {"a": {"sandal", "tiny", "optimum"}, "b": {"tiny"}}
    for axes, names in zip(figure.axes, (["loss", "tiny"], ["tiny"]), strict=True):
        lines = [list(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 3]
        assert lines == [[row[name] for row in ROWS] for name in names]
    only_time = [{"epoch": 0, "seconds": 1.0}]  # as a run has before its first update
    for change in ({"plot_due": lambda: False}, {"plot_due": lambda: True, "rows": []}, {"rows": only_time}):
        vars(run).update(change)
        plots.save_curves(run, panels)
    assert saved == [figure]


def test_axes_are_in_percent_or_logarithmic_over_a_factor_of_ten_and_zeros_have_none(saved, run):
    names = ("loss", "tiny", "none", "share", "high")
    run.rows = [{**row, "share": 0.5, "high": 0.95} for row in ROWS]
    reference, limits = {name: (0.1, "chance") for name in names[3:]}, {"share": (0, 1), "high": (0.9, 1)}
    plots.save_curves(run, {name: [name] for name in names}, reference, names, names[3:4], limits)
    axes = saved[0].axes
    assert [(panel.get_title(), panel.get_yscale()) for panel in axes[:2]] == [("loss", "linear"), ("tiny", "log")]
    assert [(panel.get_title(), panel.get_ylim()) for panel in axes[2:]] == [("share", (0, 100)), ("high", (0.9, 1))]
    assert [len(panel.lines) for panel in axes[2:]] == [2, 1]  # the reference would lie below the axes
    assert [line.get_ydata()[0] for line in axes[2].lines] == [50, 10]


def test_a_dashed_line_has_the_colour_of_the_line_before(saved, run):
    run.rows = [{**row, "half": row["loss"] / 2} for row in ROWS]
    plots.save_curves(run, {"a": ["loss", "half"]}, dashed=["half"])
    one, other = saved[0].axes[0].lines
    assert (one.get_color(), one.get_linestyle(), other.get_linestyle()) == (other.get_color(), "-", "--")


@pytest.mark.parametrize(("names", "rotation"), [(LONG, 35), (SHORT, 0)])
def test_confusion_shows_percent_of_rows_and_rotates_long_names(saved, names, rotation):
    plots.save_confusion("confusion.png", np.array([[8, 2], [0, 0]]), "a run", ("r0", "r1"), names, ("of y", "of x"))
    axes = saved[0].axes[0]
    assert axes.images[0].get_array().tolist() == [[0.8**0.4, 0.2**0.4], [0, 0]]
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("80.0", (0, 0)), ("20.0", (1, 0))]
    assert (axes.get_ylabel(), axes.get_xlabel(), axes.get_title()) == ("of y", "of x", "a run")
    assert [label.get_text() for label in (*axes.get_yticklabels(), *axes.get_xticklabels())] == ["r0", "r1", *names]
    assert axes.get_xticklabels()[0].get_rotation() == rotation


def test_equal_plots_are_equal_bytes_whatever_the_settings_of_the_user_and_names_appear_as_they_are(run):
    def content():
        plots.save_curves(run, {"a$_$": ["loss"]}, names={"loss": "$\\frac{1}{2 \\_"})  # no formula
        return (run.folder / "curves.png").read_bytes()

    plain = content()
    own = {"axes.facecolor": "black", "savefig.transparent": True, "savefig.dpi": 30, "text.usetex": True}
    with matplotlib.rc_context(own):
        assert content() == plain
        assert {name: matplotlib.rcParams[name] for name in own} == own


@pytest.mark.parametrize("copied", [True, False])
def test_neighbours_tell_a_copy_from_a_new_image(saved, run, tiny, copied):
    reals, fresh = to_float(tiny.train_images), to_float(tiny.test_images)
    samples = reals[:64] if copied else fresh
    found = gan.save_neighbours(run, SimpleNamespace(generate=lambda n, noise: noise), samples)
    assert found == pytest.approx(0 if copied else 1, abs=1e-3)
    [(name, shown, _, labels)] = saved
    assert (name, len(labels)) == ("neighbours.png", 4)
    nearest = torch.cdist(samples[:10].flatten(1), reals.flatten(1)).argsort(dim=1)[:, :3]
    assert torch.equal(shown, torch.cat((samples[None, :10, 0], reals[nearest.T, 0])))


@pytest.mark.parametrize("runs", [1, 3])
def test_shares_stand_beside_those_of_the_training_set_with_the_range_of_several_runs(saved, tiny, runs):
    data = dataclasses.replace(tiny, classes=LONG, train_labels=torch.tensor([0, 1, 1, 1]))
    shares = [[0.25, 0.75], [0.3, 0.7], [0.5, 0.5]][:runs]
    gan.save_shares(Path("digits.png"), data, "three runs", shares)
    axes = saved[0].axes[0]
    dots = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    label, middle = ("64 samples", shares[0])
    if runs == 3:
        label, middle = "64 samples of each of 3 runs, median and range", shares[1]
    assert list(dots) == ["training images", label]
    assert dots["training images"].get_ydata().tolist() == [0.25, 0.75]
    assert dots[label][0].get_ydata() == pytest.approx(middle)
    lines = [line for bar in axes.containers for part in bar[2] for line in part.get_segments()]
    ends = [line[:, 1].tolist() for line in lines]
    assert ends == ([] if runs == 1 else [pytest.approx([0.25, 0.5]), pytest.approx([0.5, 0.75])])
    assert [label.get_text() for label in axes.get_xticklabels()] == list(LONG)


def test_of_many_lines_the_highest_and_the_lowest_have_a_label_beside_the_axes():
    with plots.new_figure(4, 3) as figure:
        axes = figure.add_subplot(ylim=(0, 1))
        plots.label_ends(axes, [(number / 1000, f"line {number}", "0.3") for number in range(26)])
    shown = {text.get_text(): text.xy[1] for text in axes.texts}
    assert set(shown) == {f"line {number}" for number in (*range(7), *range(19, 26))}
    heights = [shown[name] for name in sorted(shown, key=lambda name: int(name[5:]))]
    assert heights[0] >= 0
    assert heights[-1] <= 1
    assert all(low + 0.06 < high for low, high in pairwise(heights))


# Metrics ----------------------------------------------------------------------------------------------------------


def test_known_values():
    found = metrics.contingency(torch.tensor([0, 0, 2, 2, 2]), torch.tensor([1, 1, 0, 3, 0]), 3, 4)
    assert found.tolist() == [[0, 2, 0, 0], [0, 0, 0, 0], [2, 0, 0, 1]]
    assert metrics.class_total_variation(torch.eye(10)[0], torch.full((10,), 0.1)) == pytest.approx(0.9)
    for ranks, expected in (([10, 20, 30, 1000], 1), ([4, 3, 2, 1], -1), ([2, 1, 4, 3], 0.6), ([5, 5, 5, 5], 0)):
        assert metrics.rank_correlation(torch.arange(4), torch.tensor(ranks)) == pytest.approx(expected)
    assert (metrics.quotient(3.0, 2.0), metrics.quotient(3.0, 1e-12)) == (1.5, None)


def test_accuracy_of_known_codes_under_both_maps():
    digits, shuffled = torch.arange(10).repeat(30), torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    known = [(shuffled[digits], digits, 1.0, 1.0), (digits, digits % 5, 0.5, 1.0)]
    for categories, labels, one_to_one, majority in known:
        table = metrics.contingency(categories, labels, 10, 10)
        assert metrics.accuracy(table, metrics.match(table)) == pytest.approx(one_to_one)
        assert metrics.accuracy(table, metrics.majority(table)) == pytest.approx(majority)
    table = np.array([[60, 50, 0], [50, 0, 0], [0, 0, 10]])  # the permutation of the best sum, not of the majorities
    assert (metrics.majority(table).tolist(), metrics.match(table).tolist()) == ([0, 0, 2], [1, 0, 2])
    # More categories than classes: each has its most frequent class. Fewer: each has a class of its own.
    assert (metrics.match(table[:, :2]).tolist(), metrics.match(table[:2]).tolist()) == ([0, 0, 0], [1, 0])


def test_frechet_distance_of_two_gaussians_against_the_matrix_root():
    random, turn = torch.Generator().manual_seed(0), torch.arange(16.0).view(4, 4).cos().double()
    a, b = torch.randn(2, 5_000, 4, generator=random).double() * torch.tensor([[[1, 2, 3, 1]], [[2, 1, 4, 9]]])
    a, b = a + 1, b @ turn
    cov_a, cov_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + (cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real).trace()
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(a, a + 3) == pytest.approx(4 * 9)  # of the means alone


@pytest.mark.parametrize(
    ("measure", "factor", "other", "at_least"),
    [(metrics.slant, "slant", "thickness", 0.94), (metrics.thickness, "thickness", "slant", 0.90)],
)
def test_a_measure_ranks_digits_by_their_true_factor_and_is_blind_to_the_other(measure, factor, other, at_least):
    digits = render_digits(train=2000, test=1, seed=5)
    measured, truth = measure(to_float(digits.train_images)), digits.factors[factor][:2000]
    within = [digits.train_labels == digit for digit in range(10)]
    assert min(metrics.rank_correlation(measured[rows], truth[rows]) for rows in within) > at_least
    assert abs(metrics.rank_correlation(measured, digits.factors[other][:2000])) < 0.1
    assert factor != "slant" or (measured - truth).abs().mean() < 0.1, "in its unit, too"


def test_thickness_of_a_bar_is_twice_its_area_over_its_outline_up_to_the_border():
    for width in (1, 2, 4, 6):
        x = torch.zeros(1, 1, 28, 28)
        x[..., 4:24, 10 : 10 + width] = 1
        for bar in (x, x.transpose(2, 3), 0.1 * x, x.roll(18 - width, dims=3), x.roll(4, dims=2)):
            assert metrics.thickness(bar).item() == pytest.approx(2 * 20 * width / (2 * (20 + width)), rel=0.05)
    assert metrics.thickness(torch.zeros(2, 1, 28, 28)).tolist() == [0, 0]


def row(d_real: float = 0.7, d_fake: float = 0.3, **shares: float) -> dict[str, float]:
    return {"d_real": d_real, "d_fake": d_fake, **{f"share_{digit}": 0.1 for digit in range(10)}, **shares}


STUCK, SURE, ONE = row(0.992, 0.008), row(0.999, 0.999), row(share_1=0.56)  # beyond the limits 0.01 and 0.55
STOPS = [[row(), STUCK, STUCK, STUCK], [SURE] * 3]
HEALTHY = [[row(0.988, 0.008)] * 3, [row(share_1=0.54)] * 3, [STUCK] * 2, [STUCK, STUCK, row()], [ONE, row(), ONE]]
HEALTHY += [[{"d_real": 0.7, "d_fake": 0.3}] * 3, []]


def test_a_gan_has_collapsed_if_the_last_three_rows_are_beyond_a_limit():
    shares = torch.full((10,), 0.1)
    assert all("stops" in metrics.collapse(rows, shares) for rows in STOPS)
    assert "one class" in metrics.collapse([ONE] * 3, shares)
    assert [metrics.collapse(rows, shares) for rows in HEALTHY] == [None] * len(HEALTHY)
    # Halfway from its share; at the end one row is enough.
    shares, one, less = torch.tensor([0.6, 0.4]), row(share_0=0.81), row(share_0=0.79)
    assert "one class" in metrics.collapse([one] * 3, shares)
    assert "one class" in metrics.collapse([one], shares, at_end=True)
    assert metrics.collapse([less] * 3, shares, at_end=True) is metrics.collapse([one] * 2, shares) is None


# The classifier and its scores ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A scorer of a few digits, the file of its classifier, and its console."""
    data, folder, console = render_digits(train=256, test=128), tmp_path_factory.mktemp("data"), Heard()
    state = torch.get_rng_state()
    made = SampleScorer(data, folder, console)
    assert torch.equal(torch.get_rng_state(), state)
    [file] = (folder / "classifiers").iterdir()
    return SimpleNamespace(data=data, scorer=made, folder=folder, file=file, console=console)


def test_a_few_hundred_images_are_enough_also_for_digits_in_every_corner_and_it_is_trained_once(trained):
    assert trained.scorer.accuracy > 0.95
    again = SampleScorer(trained.data, trained.folder, trained.console)
    assert trained.console.lines == ["training the classifier that judges samples, once per data set"]
    assert torch.equal(again.test_features, trained.scorer.test_features)
    x, labels, shifts = trained.data.test_images, trained.data.test_labels, [(2, 2), (2, -2), (-2, 2), (-2, -2)]
    assert torch.allclose(again.predict(to_float(x))[1], again.test_features, atol=1e-5)
    predicted, _ = again.predict(torch.cat([x.roll(shift, dims=(1, 2)) for shift in shifts]))
    assert (predicted == labels.repeat(4)).float().mean() > 0.88  # 0.72 if training did not shift them


def test_training_it_again_gives_the_same_bytes_and_a_damaged_file_is_named(trained, tmp_path):
    load_classifier(trained.data, tmp_path, Heard())
    [file] = (tmp_path / "classifiers").iterdir()
    assert (file.name, file.read_bytes()) == (trained.file.name, trained.file.read_bytes())
    for damage in (lambda: file.write_bytes(b"not weights"), lambda: write_checkpoint(file, {"weight": torch.ones(2)})):
        damage()
        with pytest.raises(BadInput, match=file.name):
            load_classifier(trained.data, tmp_path, Heard())


@pytest.mark.parametrize("change", ["images", "RECIPE", "FORMAT", "in the way"])
def test_other_images_or_another_recipe_have_their_own_file(trained, monkeypatch, tmp_path, change):
    monkeypatch.setattr(scorer, "EPOCHS", 1)
    for name in ("RECIPE", "FORMAT"):
        monkeypatch.setattr(scorer, name, getattr(scorer, name) + (change == name))
    data, console = dataclasses.replace(trained.data, train_images=trained.data.train_images.clone()), Heard()
    data.train_images[5, 3, 3] ^= change == "images"
    if change == "in the way":
        (tmp_path / "classifiers").write_text("")
    load_classifier(data, tmp_path, console)
    assert [path.name for path in (tmp_path / "classifiers").glob("*")] != [trained.file.name]
    assert ("cannot be saved in" in console.lines[-1]) is (change == "in the way")


def test_real_images_score_as_such_and_a_single_class_does_not(trained):
    judge, x = trained.scorer, to_float(trained.data.test_images)
    assert judge.train_shares.tolist() == pytest.approx((trained.data.train_labels.bincount() / 256).tolist())
    _, features = judge.predict(trained.data.train_images[:128])
    assert judge.floor == pytest.approx(metrics.frechet_distance(features, judge.test_features))
    predicted, _ = judge.predict(x)
    real, one = judge(x, predicted), judge(x[predicted == 3])
    assert real["frechet"] < 1e-3 * judge.floor < 5 * judge.floor < one["frechet"]
    assert real["frechet_over_floor"] == real["frechet"] / judge.floor
    assert [real[f"share_{label}"] for label in range(10)] == pytest.approx((predicted.bincount() / 128).tolist())
    assert (one["share_3"], one["class_total_variation"]) == (1, pytest.approx(1 - judge.train_shares[3].item()))
    assert (real["drawn_as_meant"], "drawn_as_meant" in one) == (1, False)
    ones = trained.data.test_labels == 1
    same = torch.where(ones[:, None, None, None], x[ones][:1], x)
    assert judge(x, trained.data.test_labels)["spread_over_test"] == pytest.approx(1)
    assert judge(same, trained.data.test_labels)["spread_over_test"] < 0.99


@pytest.mark.parametrize("classes", ["abc", "abcdefghijklmnopqrstuvwxyz"], ids=len)
def test_there_is_a_share_for_each_class_however_many(trained, monkeypatch, tmp_path, classes):
    monkeypatch.setattr(scorer, "EPOCHS", 2)
    labels = {f"{part}_labels": torch.arange(n) % len(classes) for part, n in (("train", 256), ("test", 128))}
    judge = SampleScorer(dataclasses.replace(trained.data, classes=tuple(classes), **labels), tmp_path, Heard())
    judge.classifier.head.bias[1] = 1e6
    scores = judge(to_float(trained.data.test_images), torch.arange(128) % 4)
    assert [name for name in scores if "share" in name] == [f"share_{name}" for name in classes]
    assert (scores["share_b"], scores["drawn_as_meant"]) == (1, 0.25)
    assert scores["class_total_variation"] == pytest.approx(1 - judge.train_shares[1].item())


def test_the_summary_is_that_of_the_scores(trained):
    scores = row() | {"share_3": 0.05, "share_8": 0.15, "drawn_as_meant": 0.4, "spread_over_test": 0.9}
    scores |= {"frechet": 10.0, "frechet_over_floor": 2.5, "class_total_variation": 0.2, "loss_d": 1.0}
    found = trained.scorer.summary(scores)
    assert found == {
        **{name: scores[name] for name in ("drawn_as_meant", "spread_over_test", "frechet", "frechet_over_floor")},
        "class_total_variation": 0.2,
        **{"share_smallest": 0.05, "share_largest": 0.15},
        **{"frechet_floor": trained.scorer.floor, "classifier_accuracy": trained.scorer.accuracy},
    }
    assert "5.0% to 15.0% of the samples each, 20.0% off" in SampleScorer.scorecard(found)["classes"]
    for ratio, shown in ((2.5, "2.5 ("), (None, "none (")):
        assert SampleScorer.scorecard({**found, "frechet_over_floor": ratio})["Fréchet ×"].startswith(shown)

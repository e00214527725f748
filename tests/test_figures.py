"""Pictures: what their pixels and files hold, whatever is drawn in them; and what samples show of a generator."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.container import ErrorbarContainer
from PIL import Image

from common.look import figures, plots, samples

ROWS = [{"epoch": epoch, "loss": 1 / epoch, "tiny": 10.0**-epoch, "none": 0.0} for epoch in range(1, 4)]
LONG, SHORT = ("T-shirt", "trouser"), ("0", "1")


@pytest.fixture
def saved(monkeypatch):
    """What would be written: matplotlib's figures, and the calls of `save_grid`."""
    kept = []
    monkeypatch.setattr(plots, "save_figure", lambda path, figure, pdf=True: kept.append(figure))
    monkeypatch.setattr(figures, "save_grid", lambda path, *call: kept.append((path.name, *call)))
    return kept


@pytest.fixture
def run(tmp_path, tiny):
    return SimpleNamespace(folder=tmp_path, data=tiny, title="a run", epoch=7, when="epoch 7")


@pytest.mark.parametrize("labels", [((), ()), (("upper row", "lower row"), ("a", "b", "c"))])
def test_a_grid_shows_greys_as_they_are_clipped_and_never_stretched(tmp_path, labels):
    greys = torch.tensor([[-1.0, 0.0, 0.25], [0.5, 1.0, 3.0]])
    figures.save_grid(tmp_path / "grid.png", greys[:, :, None, None].expand(-1, -1, 28, 28), "a\ntitle", *labels)
    with Image.open(tmp_path / "grid.png") as picture:
        page = np.array(picture)
    top, left = page.shape[0] - 8 - 2 * 58, page.shape[1] - 10 - 3 * 58
    for (row, column), grey in np.ndenumerate(np.array([[0, 0, 64], [128, 255, 255]])):
        assert (page[top + 58 * row :, left + 58 * column :][:56, :56] == grey).all()
    assert (page[:top] < 128).any(), "no title"
    assert (left > 12) is bool(labels[0])


@pytest.mark.parametrize("classes", [SHORT, ()])
def test_reals_are_ten_of_each_class_or_the_first_hundred_and_too_few_leave_black_places(saved, run, tiny, classes):
    few = {"train_images": tiny.train_images[:97], "train_labels": tiny.train_labels[:97]}
    run.data = dataclasses.replace(tiny, classes=classes, **few)
    figures.draw_reals(run)
    x, labels = torch.cat((few["train_images"], torch.zeros(3, 28, 28))), few["train_labels"]
    rows = [x[:97][labels == row][:10] for row in range(2)] if classes else x.split(10)
    assert torch.equal(saved[0][1], torch.stack(list(rows)) / 255)
    assert saved[0][2:] == ("drawn digits, not MNIST: training images", classes)


@pytest.mark.parametrize(
    ("panels", "named", "expected"),
    [
        ({"no": ["accuracy"], "yes": ["loss", "other"]}, {}, {"yes": ["loss"]}),
        ({"a": ["loss", "tiny"]}, {"names": {"loss": "sandal"}}, {"a": ["sandal", "tiny"]}),
        ({"a": ["loss"]}, {"reference": {"a": (0.5, "optimum"), "b": (1, "none")}}, {"a": ["optimum", "loss"]}),
    ],
    ids=["what was not measured is left out", "a column called otherwise", "a labelled limit"],
)
def test_curves_have_a_panel_per_entry_and_a_line_per_column(saved, panels, named, expected):
    plots.save_curves("curves.png", [], "of no epoch", panels, **named)
    plots.save_curves("curves.png", ROWS, "a run", panels, **named)
    [figure] = saved
    assert {axes.get_title(): [text.get_text() for text in axes.texts] for axes in figure.axes} == expected
    assert list(figure.axes[0].lines[0].get_ydata()) == [1, 1 / 2, 1 / 3]
    logarithmic = "loss", "tiny", "none"  # only over a factor of ten; zeros are not zoomed
    plots.save_curves("c.png", ROWS, "", {name: [name] for name in logarithmic}, logarithmic=logarithmic)
    assert [axes.get_yscale() for axes in saved[1].axes] == ["linear", "log", "linear"]
    assert saved[1].axes[2].get_ylim() == (-0.1, 1)


@pytest.mark.parametrize(("names", "rotation"), [(LONG, 35), (SHORT, 0)])
def test_confusion_shows_percent_of_rows_and_slants_long_names(saved, names, rotation):
    plots.save_confusion("confusion.png", np.array([[8, 2], [0, 0]]), "a run", ("r0", "r1"), names, ("of y", "of x"))
    axes = saved[0].axes[0]
    assert axes.images[0].get_array().tolist() == [[0.8, 0.2], [0, 0]]
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("80.0", (0, 0)), ("20.0", (1, 0))]
    assert (axes.get_ylabel(), axes.get_xlabel(), axes.get_title()) == ("of y", "of x", "a run")
    assert [label.get_text() for label in (*axes.get_yticklabels(), *axes.get_xticklabels())] == ["r0", "r1", *names]
    assert axes.get_xticklabels()[0].get_rotation() == rotation


def test_a_plot_is_written_for_the_screen_and_for_paper_and_equal_plots_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        plots.save_curves(tmp_path / f"{name}.png", ROWS, "a run", {"loss": ["loss"]})
    for kind, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        content = (tmp_path / f"a{kind}").read_bytes()
        assert content.startswith(start)
        assert content == (tmp_path / f"b{kind}").read_bytes()
        assert not any(word in content for word in (b"Date", b"atplotlib", b"Producer"))


@pytest.mark.parametrize(("count", "frames"), [(201, 60), (13, 13)])
def test_an_animation_has_every_epoch_or_sixty_from_the_first_to_the_last(tmp_path, count, frames):
    random, shown = np.random.default_rng(0), []
    for i in range(count):
        grey = random.integers(0, 256, (40, 40), dtype=np.uint8)
        grey[:20] = i  # tells which epoch a frame is
        Image.fromarray(grey).save(tmp_path / f"epoch_{i:03d}.png")
    figures.save_animation(tmp_path / "training.gif", figures.epoch_pictures(tmp_path))
    with Image.open(tmp_path / "training.gif") as animation:
        for k in range(animation.n_frames):
            animation.seek(k)
            shown.append(animation.convert("L").getpixel((5, 5)))
        assert (animation.info["loop"], animation.info["duration"]) == (0, 2000)  # of the last frame
    assert len(shown) == frames
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (0, round((count - 1) / 17) * 17)


def test_every_frame_has_its_rows_in_the_last_order_under_the_same_labels(tmp_path):
    """Row `key` is of grey 0.25 * key in both frames; another program's picture is shown as it is."""
    for epoch, keys in enumerate(([2, 0, 1], [0, 1, 2])):
        rows = (torch.tensor(keys) / 4).view(3, 1, 1, 1).expand(3, 1, 28, 28)
        figures.save_grid(tmp_path / f"epoch_{epoch:03d}.png", rows, "a title", "abc", keys=keys)
    last = tmp_path / "epoch_001.png"
    pages = [figures.read_grid(path, last) for path in figures.epoch_pictures(tmp_path)]
    assert pages[0][0].tobytes() == pages[1][0].tobytes()
    page, left, top = pages[0]
    assert [page.getpixel((left, top + 58 * row)) for row in range(3)] == [0, 64, 128]
    Image.new("L", (9, 9), 7).save(tmp_path / "other.png")
    assert figures.read_grid(tmp_path / "other.png", last)[0].getcolors() == [(81, 7)]
    figures.save_animation(tmp_path / "training.gif", figures.epoch_pictures(tmp_path))
    with Image.open(tmp_path / "training.gif") as animation:
        assert animation.convert("L").getpixel((left, top)) == 0


def test_epochs_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("epoch_1000", "epoch_999", "epoch_002", "epoch_1000_c1", "epoch_002_c1"):
        (tmp_path / f"{name}.png").touch()
    assert [path.stem for path in figures.epoch_pictures(tmp_path, "_c1")] == ["epoch_002_c1", "epoch_1000_c1"]


OWN_SETTINGS = {  # what a user may have set matplotlib to
    "a dark style": {"axes.facecolor": "black", "savefig.transparent": True, "savefig.dpi": 30},
    "LaTeX": {"text.usetex": True},
    "another font": {"font.size": 30, "font.family": "monospace"},
}


@pytest.mark.parametrize("settings", OWN_SETTINGS.values(), ids=OWN_SETTINGS)
def test_the_settings_of_the_user_do_not_change_a_plot_and_are_kept(tmp_path, settings):
    import matplotlib

    plots.save_curves(tmp_path / "plain.png", ROWS, "a run", {"loss": ["loss"]})
    with matplotlib.rc_context(settings):
        plots.save_curves(tmp_path / "own.png", ROWS, "a run", {"loss": ["loss"]})
        assert all(matplotlib.rcParams[name] in (value, [value]) for name, value in settings.items())
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


@pytest.mark.parametrize("name", ["price_$5_vs_$10", "a$_$", "$\\frac{1}{2", "_hidden", "50 %_x^2"])
def test_a_name_appears_as_it_is(saved, tmp_path, name):
    plots.save_curves("curves.png", ROWS, name, {"a": ["loss"]}, names={"loss": name})
    [figure] = saved
    figure.savefig(tmp_path / "drawn.png")
    assert figure.get_suptitle() == name
    [text] = figure.axes[0].texts
    assert (text.get_text(), text.get_parse_math()) == (name, False)


@pytest.mark.parametrize("copied", [True, False])
def test_neighbours_tell_a_copy_from_a_new_image(saved, run, tiny, copied):
    reals, fresh = (x[:, None] / 255 for x in (tiny.train_images, tiny.test_images))
    drawn = reals[:64] if copied else fresh
    assert samples.draw_neighbours(run, drawn) == pytest.approx(0 if copied else 1, abs=1e-3)
    [(name, shown, _, labels)] = saved
    assert (name, len(labels)) == ("neighbours.png", 4)
    nearest = torch.cdist(drawn[:10].flatten(1), reals.flatten(1)).argsort(dim=1)[:, :3]
    assert torch.equal(shown, torch.cat((drawn[None, :10, 0], reals[nearest.T, 0])))


@pytest.mark.parametrize("runs", [1, 3])
def test_shares_stand_beside_those_of_the_training_set_with_the_spread_of_several_runs(saved, tiny, runs):
    data = dataclasses.replace(tiny, classes=LONG, train_labels=torch.tensor([0, 1, 1, 1]))
    shares = [[0.25, 0.75], [0.3, 0.7], [0.5, 0.5]][:runs]
    samples.draw_shares(Path("digits.png"), data, "three runs", shares)
    axes = saved[0].axes[0]
    bars = {bar.get_label(): [patch.get_height() for patch in bar] for bar in axes.containers if len(bar) == 2}
    label, middle = ("64 samples", shares[0]) if runs == 1 else ("64 samples of each of 3 runs", shares[1])
    assert bars == {"training images": [0.25, 0.75], label: pytest.approx(middle)}
    lines = [line for bar in axes.containers if isinstance(bar, ErrorbarContainer) for line in bar[2][0].get_segments()]
    ends = [line[:, 1].tolist() for line in lines]
    assert ends == ([] if runs == 1 else [pytest.approx([0.25, 0.5]), pytest.approx([0.5, 0.75])])
    assert [label.get_text() for label in axes.get_xticklabels()] == list(LONG)

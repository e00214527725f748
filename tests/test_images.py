"""Pictures: what their pixels and files hold, whatever is drawn in them."""

import numpy as np
import pytest
import torch
from PIL import Image

from common import images

ROWS = [{"epoch": epoch, "loss": 1 / epoch, "tiny": 10.0**-epoch} for epoch in range(1, 4)]


@pytest.fixture
def figures(monkeypatch):
    """The matplotlib figures that are saved, instead of files."""
    saved = []
    monkeypatch.setattr(images, "save_figure", lambda path, figure: saved.append(figure))
    return saved


def frames(folder, count: int, picture) -> list:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        picture(i).save(folder / f"epoch_{i:03d}.png")
    return sorted(folder.iterdir())


def test_two_hundred_noisy_epochs_make_an_animation_below_5_mb_from_the_first_to_the_last(tmp_path):
    random = np.random.default_rng(0)

    def noise(i: int) -> Image.Image:
        grey = random.integers(0, 256, (640, 620), dtype=np.uint8)
        grey[:20] = i  # tells which epoch a frame is
        return Image.fromarray(grey)

    images.save_animation(tmp_path / "training.gif", frames(tmp_path / "frames", 201, noise))
    assert (tmp_path / "training.gif").stat().st_size < 5_000_000
    with Image.open(tmp_path / "training.gif") as animation:
        shown = []
        for k in range(animation.n_frames):
            animation.seek(k)
            shown.append(animation.convert("L").getpixel((5, 5)))
    assert len(shown) >= 10
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (0, round(200 / 17) * 17)


def test_a_short_animation_has_every_epoch(tmp_path):
    paths = frames(tmp_path / "frames", 13, lambda i: Image.new("L", (60, 60), 17 * i))
    images.save_animation(tmp_path / "training.gif", paths)
    with Image.open(tmp_path / "training.gif") as animation:
        assert animation.n_frames == 13


def test_a_plot_is_written_for_the_screen_and_for_paper_without_date_or_version(tmp_path):
    images.save_curves(tmp_path / "curves.png", ROWS, "a run", {"loss": ["loss"]})
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "curves.pdf"}
    paper = (tmp_path / "curves.pdf").read_bytes()
    assert paper.startswith(b"%PDF")
    assert len(paper) < 200_000
    for word in (b"Date", b"Matplotlib", b"Producer"):
        assert word not in paper


def test_panels_of_what_was_not_measured_are_left_out(figures):
    images.save_curves("curves.png", ROWS, "a run", {"agreement": ["accuracy"], "loss": ["loss", "other"]})
    assert [axes.get_title() for axes in figures[0].axes] == ["loss", "tiny"]
    assert [line.get_label() for line in figures[0].axes[0].lines] == ["loss"]


def test_a_column_can_be_called_otherwise(figures):
    images.save_curves("curves.png", ROWS, "a run", {"share": ["loss", "tiny"]}, names={"loss": "sandal"})
    assert [line.get_label() for line in figures[0].axes[0].lines] == ["sandal", "tiny"]


def test_an_axis_is_logarithmic_only_where_values_span_a_factor_of_ten(figures):
    images.save_curves("curves.png", ROWS, "a run", {"a": ["loss"], "b": ["tiny"]}, logarithmic=("a", "b"))
    assert [axes.get_yscale() for axes in figures[0].axes] == ["linear", "log"]


def test_long_names_of_classes_are_slanted_and_digits_are_not(figures):
    for names in (["T-shirt", "trouser"], ["0", "1"]):
        images.save_confusion("confusion.png", np.eye(2, dtype=int), "a run", names, names)
    turned, straight = (figure.axes[0].get_xticklabels()[0].get_rotation() for figure in figures)
    assert (turned, straight) == (35, 0)


def test_too_few_images_leave_black_places_and_too_many_are_left_out():
    few = images.tiled(torch.ones(3, 28, 28), 2, 2)
    assert few.shape == (2, 2, 28, 28)
    assert few.amax(dim=(2, 3)).tolist() == [[1, 1], [1, 0]]
    assert images.tiled(torch.arange(9).view(9, 1, 1), 2, 2).flatten().tolist() == [0, 1, 2, 3]

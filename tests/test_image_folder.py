"""A folder of images: how it is split into parts and classes, how an image is read, what is refused."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import autoencoder
from common import BadInput
from common.data import load_dataset
from common.data.image_folder import load_folder, read_image
from common.run import Run

CLASSES = ("round", "a slim one with a tail", "other")


def save_images(folder: Path, images: Tensor, classes: Sequence[str] = ("",)) -> Path:
    """Write images (n, 28, 28) as 000.png, 001.png …, in turn into the sub-folders `classes`. Returns the folder."""
    for i, image in enumerate(images.numpy()):
        file = folder / classes[i % len(classes)] / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return folder


@pytest.fixture
def loose(tmp_path, tiny):
    return save_images(tmp_path / "my pictures", tiny.train_images)


def saved(folder: Path, image: Image.Image, **options: object) -> np.ndarray:
    """What is read back from a file of this image."""
    image.save(folder / "a.png", **options)
    return read_image(folder / "a.png")


def test_loose_images_have_no_labels_and_each_is_in_one_part(loose, tiny):
    data = load_folder(loose)
    assert (data.name, data.title, data.source, data.classes) == (loose.name, f"folder {loose.name}", str(loose), ())
    assert (data.train_labels, data.test_labels) == (None, None)
    assert (data.train_images.shape, data.test_images.shape) == ((109, 28, 28), (19, 28, 28))
    found = torch.cat((data.train_images, data.test_images)).flatten(1)
    assert sorted(found.tolist()) == sorted(tiny.train_images.flatten(1).tolist())


def test_sub_folders_are_classes_in_the_order_of_their_names_and_in_both_parts(tmp_path, tiny):
    folder = save_images(tmp_path / "my classes", tiny.train_images, CLASSES)
    data = load_dataset(str(folder), tmp_path)
    assert data.classes == ("a slim one …", "other", "round")
    files = {np.array(Image.open(file)).tobytes(): file.parent.name for file in folder.rglob("*.png")}
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert labels.dtype == torch.int64
        assert [files[image.numpy().tobytes()] for image in images] == [sorted(CLASSES)[label] for label in labels]
        assert min(torch.bincount(labels, minlength=3)) >= 5
        assert labels.tolist() != sorted(labels.tolist()), "not shuffled"
    torch.manual_seed(3)
    again = load_folder(folder)
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(again, part), getattr(data, part)), "the random state has an influence"


def test_ink_on_paper_is_inverted_as_a_whole(loose, tiny, tmp_path):
    inverted = save_images(tmp_path / "inverted", 255 - tiny.train_images)
    assert torch.equal(load_folder(inverted).train_images, load_folder(loose).train_images)


def test_other_files_and_hidden_ones_are_ignored(loose):
    (loose / "notes.txt").write_text("not an image")
    (loose / ".thumb.png").write_bytes(b"not an image")
    (loose / ".cache").mkdir()
    shutil.copy(loose / "000.png", loose / ".cache")
    assert len(load_folder(loose).train_images) == 109


def test_a_wide_image_is_centred_on_its_own_background_and_not_stretched(tmp_path):
    wide = np.full((56, 112), 20, np.uint8)
    wide[8:48, 36:76] = 220  # a square
    small = saved(tmp_path, Image.fromarray(wide))
    assert small.shape == (28, 28)
    assert (small[:7] == 20).all()
    ink = small > 120
    assert ink.any(axis=0).sum() == ink.any(axis=1).sum() == 10


def test_an_image_of_the_right_size_is_only_turned_as_its_exif_says(tmp_path, tiny):
    pixels, upside_down = tiny.train_images[0].numpy(), Image.Exif()
    upside_down[0x0112] = 3
    image = Image.fromarray(pixels)
    assert np.array_equal(saved(tmp_path, image), pixels)
    assert np.array_equal(saved(tmp_path, image, exif=upside_down), pixels[::-1, ::-1])


def test_resizing_averages_over_all_pixels(tmp_path):
    checkerboard = np.indices((280, 280)).sum(axis=0) % 2 * 255
    small = saved(tmp_path, Image.fromarray(checkerboard.astype(np.uint8)))
    assert 120 <= small.min() <= small.max() <= 135


@pytest.mark.parametrize(("ink", "paper"), [(255, 0), (0, 255)])
def test_what_is_transparent_is_paper(tmp_path, ink, paper):
    image = np.zeros((28, 28, 4), np.uint8)
    image[..., :3] = 255 - ink  # the colour under the transparency must not show
    image[10:18, 10:18] = (ink, ink, ink, 255)
    found = saved(tmp_path, Image.fromarray(image))
    assert (found[12, 12], found[0, 0]) == (ink, paper)


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        (Image.new("RGB", (28, 28), (255, 0, 0)), 76),  # 0.299 of 255
        (Image.new("1", (28, 28), 1), 255),
        (Image.fromarray(np.full((28, 28), 30_000, np.uint16)), 30_000),
    ],
    ids=["colour", "1 bit", "16 bits"],
)
def test_every_pixel_format_becomes_grey(tmp_path, image, grey):
    assert (saved(tmp_path, image) == grey).all()


STORED = {  # how the pixels 0 … 255 of a set are stored, the scale that is said
    "as they are": (lambda x: x, "0 to 255"),
    "16 bits": (lambda x: (x * 257.0).astype(np.uint16), "0 to 65535"),
    "12 bits in 16": (lambda x: (x * (4095 / 255)).round().astype(np.uint16), "0 to 4095"),
    "8 bits in 16": (lambda x: x.astype(np.uint16), "0 to 255"),
    "8 bits in 32": (lambda x: x.astype(np.int32), "0 to 255"),
    "floats from 0 to 1": (lambda x: x.astype(np.float32) / 255, "0 to 1"),
    "floats from -1 to 1": (lambda x: x.astype(np.float32) / 127.5 - 1, "-1 to 1"),
    "floats from 0 to 255": (lambda x: x.astype(np.float32), "0 to 255"),
}


@pytest.mark.parametrize(("store", "scale"), STORED.values(), ids=STORED)
def test_a_set_has_one_scale_however_its_pixels_are_stored(tmp_path, loose, tiny, store, scale):
    (tmp_path / "stored").mkdir()
    for i, image in enumerate(tiny.train_images.numpy()):
        Image.fromarray(store(image)).save(tmp_path / "stored" / f"{i:03d}.tif")
    data, plain = load_folder(tmp_path / "stored"), load_folder(loose)
    assert (data.train_images.int() - plain.train_images.int()).abs().max() <= 1
    assert f"of {scale}" in data.note


def test_masks_of_0_and_1_are_black_and_white(tmp_path, tiny):
    data = load_folder(save_images(tmp_path / "masks", (tiny.train_images > 127).byte()))
    assert data.train_images.unique().tolist() == [0, 255]


def test_what_was_read_is_said_in_one_line(tmp_path, tiny):
    folder = save_images(tmp_path / "pictures", 255 - tiny.train_images, CLASSES)
    (folder / "other" / "labels.csv").write_text("1")
    said = load_folder(folder).note
    assert said == ("read 128 images, 3 classes, grey values 0 to 255 of 0 to 255, inverted, passed over 1 × .csv")


@pytest.mark.parametrize("classes", ["a", "abcdefghijk"], ids=["one", "eleven"])
def test_one_sub_folder_or_more_than_ten_are_no_classes(tmp_path, tiny, classes):
    data = load_folder(save_images(tmp_path / "pictures", tiny.train_images, classes))
    assert (data.classes, data.train_labels) == ((), None)
    assert f"{len(classes)} sub-folders" in data.note


DOUBTFUL = {  # images that are written, what is warned of
    "half of them inverted": (lambda x: torch.cat((x[:64], 255 - x[64:])), "ink on paper"),
    "a fifth of them inverted": (lambda x: torch.cat((x[:100], 255 - x[100:])), "ink on paper"),
    "two images, 60 copies each": (lambda x: x[:2].repeat(60, 1, 1), "18 of 18 test images are training images"),
    "each image twice": (lambda x: x.repeat(2, 1, 1), "test images are training images"),
}


@pytest.mark.parametrize(("change", "said"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_doubtful_set_is_warned_of(tmp_path, tiny, change, said):
    data = load_folder(save_images(tmp_path / "pictures", change(tiny.train_images)))
    assert [said in warning for warning in data.warnings] == [True]


def test_a_sound_set_is_not_warned_of(loose):
    assert load_folder(loose).warnings == ()


def tiny_contrast() -> Tensor:
    return torch.arange(128 * 784).remainder(3).view(128, 28, 28).byte() + 90


FAULTS = {  # sub-folders, harm, what the message says
    "99 images": ([""], lambda folder: [file.unlink() for file in sorted(folder.iterdir())[99:]], "holds 99 images"),
    "no images": ([""], lambda folder: [file.unlink() for file in folder.iterdir()], "holds 0 images"),
    "images beside classes": (CLASSES, lambda folder: shutil.copy(folder / "round" / "000.png", folder), "beside"),
    "all the same": ([""], lambda folder: save_images(folder, torch.ones(128, 28, 28).byte()), "the same"),
    "no contrast": ([""], lambda folder: save_images(folder, tiny_contrast()), "no contrast"),
    "another kind of files": (
        [""],
        lambda folder: [file.rename(file.with_suffix(".heic")) for file in folder.iterdir()],
        "holds 0 images, sub-folders included, passed over 128 × .heic",
    ),
    "several broken files": ([""], lambda folder: [os.truncate(folder / f"{i:03d}.png", 9) for i in (3, 5)], "005.png"),
    "an image cut short": ([""], lambda folder: os.truncate(folder / "017.png", 200), "017.png"),
    "an empty image": ([""], lambda folder: os.truncate(folder / "017.png", 0), "017.png"),
    "text as an image": ([""], lambda folder: (folder / "017.png").write_bytes(b"text" * 30), "017.png"),
}


@pytest.mark.parametrize(("classes", "harm", "said"), FAULTS.values(), ids=FAULTS)
def test_a_folder_that_cannot_be_used_is_named_before_a_run_writes_anything(tmp_path, out, tiny, classes, harm, said):
    folder = save_images(tmp_path / "pictures", tiny.train_images, classes)
    harm(folder)
    with pytest.raises(BadInput) as error:
        Run(autoencoder.Config(dataset=str(folder), out=out, device="cpu"))
    assert str(folder) in str(error.value)
    assert said in str(error.value)
    assert not out.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_sub_folder_without_rights_is_named(tmp_path, tiny):
    locked = save_images(tmp_path, tiny.train_images, CLASSES) / "round"
    locked.chmod(0)
    with pytest.raises(BadInput, match="round"):
        load_folder(tmp_path)
    locked.chmod(0o700)  # so that pytest can remove it

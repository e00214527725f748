"""A folder of the user's own images, and sets that are no digits: what is read, what is refused, what a run draws."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import autoencoder
import gan_mlp
import infogan
from common import BadInput, guide
from common.data import CLASSES, check_dataset, drawn, load_dataset
from common.folder import load_folder, read_image
from common.run import Run, parse
from tests.helpers import run_script
from tests.test_data import idx_bytes

SCRIPTS = {"infogan": infogan, "gan_mlp": gan_mlp, "autoencoder": autoencoder}


@pytest.fixture(scope="module")
def digits():
    return drawn(train=130, test=40)


@pytest.fixture
def loose(tmp_path, digits):
    """130 images without classes."""
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for i, image in enumerate(digits.train_images.numpy()):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture
def classes(loose):
    """The same in three sub-folders: round, slim, other."""
    for name in ("round", "slim", "other"):
        (loose / name).mkdir()
    for i, file in enumerate(sorted(loose.glob("*.png"))):
        file.rename(loose / ("round", "slim", "other")[i % 3] / file.name)
    return loose


# Reading a folder -----------------------------------------------------------------------------------------------


def test_loose_images_have_no_labels_and_every_one_is_in_one_part(loose, digits):
    data = load_folder(loose)
    assert (data.name, data.title, data.classes) == ("my pictures", "folder my pictures", ())
    assert (data.train_labels, data.test_labels) == (None, None)
    assert (data.train_images.shape, data.test_images.shape) == ((111, 28, 28), (19, 28, 28))
    found = torch.cat((data.train_images, data.test_images)).flatten(1)
    assert sorted(found.tolist()) == sorted(digits.train_images.flatten(1).tolist())


def test_sub_folders_are_classes_in_the_order_of_their_names_and_in_both_parts(classes):
    data = load_dataset(str(classes), classes / "no data")
    assert data.classes == ("other", "round", "slim")
    for part, labels in (("train", data.train_labels), ("test", data.test_labels)):
        assert labels.dtype == torch.int64
        assert min(torch.bincount(labels, minlength=3)) >= 6, part
        assert labels[:6].tolist() != sorted(labels[:6].tolist()), "not shuffled"
    for image, label in zip(data.train_images, data.train_labels, strict=True):
        of_class = [np.array(Image.open(file)) for file in (classes / data.classes[label]).iterdir()]
        assert any(np.array_equal(image.numpy(), other) for other in of_class)


def test_a_long_name_of_a_class_is_shown_short(classes):
    (classes / "slim").rename(classes / "a slim one with a tail")
    assert load_folder(classes).classes == ("a slim one …", "other", "round")


def test_the_same_folder_gives_the_same_set_whatever_the_random_state(classes):
    first = load_folder(classes)
    torch.manual_seed(3)
    second = load_folder(classes)
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(first, part), getattr(second, part))


def test_ink_on_paper_is_inverted_as_a_whole(loose, digits):
    before = load_folder(loose)
    for file in loose.iterdir():
        Image.fromarray(255 - np.array(Image.open(file))).save(file)
    after = load_folder(loose)
    assert torch.equal(before.train_images, after.train_images)


def test_other_files_and_hidden_ones_are_left_alone(loose):
    (loose / "notes.txt").write_text("not an image")
    (loose / ".thumb.png").write_bytes(b"not an image")
    (loose / ".cache").mkdir()
    assert len(load_folder(loose).train_images) == 111


# Reading an image -----------------------------------------------------------------------------------------------


def test_an_image_of_the_right_size_is_taken_as_it_is(tmp_path, digits):
    image = digits.train_images[0].numpy()
    Image.fromarray(image).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), image)


def test_a_wide_image_is_centred_on_its_own_background_and_not_stretched(tmp_path):
    wide = np.full((56, 112), 20, np.uint8)
    wide[8:48, 36:76] = 220  # a square
    Image.fromarray(wide).save(tmp_path / "a.png")
    small = read_image(tmp_path / "a.png")
    assert small.shape == (28, 28)
    assert (small[:7] == 20).all()
    ink = small > 120
    assert ink.any(axis=0).sum() == ink.any(axis=1).sum() == 10


def test_resizing_averages_over_all_pixels(tmp_path):
    fine = np.indices((280, 280)).sum(axis=0) % 2 * 255
    Image.fromarray(fine.astype(np.uint8)).save(tmp_path / "a.png")
    assert 120 <= read_image(tmp_path / "a.png").min() <= read_image(tmp_path / "a.png").max() <= 135


@pytest.mark.parametrize(("ink", "paper"), [(255, 0), (0, 255)])
def test_what_is_transparent_is_paper(tmp_path, ink, paper):
    image = np.zeros((28, 28, 4), np.uint8)
    image[..., :3] = 255 - ink  # the colour under the transparency must not show
    image[10:18, 10:18] = (ink, ink, ink, 255)
    Image.fromarray(image).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert (found[12, 12], found[0, 0]) == (ink, paper)


def test_colours_and_sixteen_bits_become_grey(tmp_path):
    Image.new("RGB", (28, 28), (255, 0, 0)).save(tmp_path / "red.png")
    Image.fromarray(np.full((28, 28), 30_000, np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "red.png")[0, 0] == 76  # 0.299 of 255
    assert read_image(tmp_path / "deep.png")[0, 0] == round(30_000 / 257)


# What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"text" * 30])
def test_a_damaged_image_is_named(loose, damage):
    file = loose / "017.png"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BadInput, match=r"017\.png"):
        load_folder(loose)


def test_too_few_images_are_refused_with_their_number(loose):
    for file in sorted(loose.iterdir())[99:]:
        file.unlink()
    with pytest.raises(BadInput, match="99 images"):
        load_folder(loose)


def test_an_empty_folder_and_one_class_and_eleven_are_refused(classes):
    for name in ("round", "slim"):
        shutil.rmtree(classes / name)
    with pytest.raises(BadInput, match="1 sub-folder"):
        load_folder(classes)
    for i in range(10):
        shutil.copytree(classes / "other", classes / f"copy {i}")
    with pytest.raises(BadInput, match="11 sub-folders"):
        load_folder(classes)
    (classes / "empty").mkdir()
    with pytest.raises(BadInput, match="holds 0 images"):
        load_folder(classes / "empty")


def test_images_beside_classes_are_refused(classes):
    shutil.copy(next((classes / "round").iterdir()), classes / "x.png")
    with pytest.raises(BadInput, match="beside"):
        load_folder(classes)


def test_images_that_are_all_the_same_are_refused(loose):
    for file in sorted(loose.iterdir())[1:]:
        shutil.copy(loose / "000.png", file)
    with pytest.raises(BadInput, match="the same"):
        load_folder(loose)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_rights_is_named(classes):
    (classes / "round").chmod(0)
    try:
        with pytest.raises(BadInput, match="round"):
            load_folder(classes)
    finally:
        (classes / "round").chmod(0o700)


@pytest.mark.parametrize("name", ["imagenet", "", "no/such/folder", "~nobody at all/x"])
def test_a_name_that_is_neither_a_set_nor_a_folder_is_refused(name):
    with pytest.raises(BadInput, match="--dataset"):
        check_dataset(name)


def test_the_nearest_name_is_suggested():
    with pytest.raises(BadInput, match="perhaps you meant fashion"):
        check_dataset("fasion")


# Runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, out, monkeypatch):
    """Call a script's main, which looks at few images of its own, and return the folder of the run."""
    monkeypatch.setattr(infogan, "PER_CATEGORY", 20)
    monkeypatch.setattr(guide, "UPDATES", 5)

    def call(script: str, dataset: object, **fields: object):
        module = SCRIPTS[script]
        shared = {"epochs": 1, "batch_size": 37, "device": "cpu", "out": out, "data_dir": tmp_path / "data"}
        module.main(module.Config(dataset=str(dataset), **shared | fields))
        return sorted((out / script).iterdir())[-1]

    return call


def header(folder) -> list[str]:
    with (folder / "metrics.csv").open(newline="") as file:
        return next(csv.reader(file))


LABELLED = {"classes", "accuracy", "share_distance", "frechet", "normalised_mutual_information", "classifier_accuracy"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_without_labels_leaves_out_what_needs_them(run, loose, script):
    folder = run(script, loose)
    report = json.loads((folder / "report.json").read_text())
    assert report["dataset"] == "my pictures"
    assert not LABELLED & {*report, *header(folder)}
    assert not {"confusion.png", "digits.png"} & {path.name for path in folder.iterdir()}
    assert not (folder.parents[2] / "data").exists(), "a classifier was trained"
    assert json.loads((folder / "config.json").read_text())["dataset"] == str(loose)
    SCRIPTS[script].load(folder)


def test_a_run_without_labels_keeps_the_order_of_the_categories(run, loose):
    assert infogan.load(run("infogan", loose)).digit_of_category.tolist() == list(range(10))


@pytest.mark.parametrize("script", ["infogan", "gan_mlp"])
def test_a_run_on_three_classes_is_measured_against_three(run, classes, script):
    folder = run(script, classes)
    report = json.loads((folder / "report.json").read_text())
    assert report["classifier_accuracy"] > 0
    assert (folder / ("confusion.png" if script == "infogan" else "digits.png")).exists()
    if script == "gan_mlp":
        assert [name for name in header(folder) if name.startswith("digit_")] == ["digit_0", "digit_1", "digit_2"]


def test_a_run_on_a_folder_goes_on_from_another_place_if_the_folder_is_given_again(run, loose, monkeypatch):
    """A run folder may come from a stranger, so the path that it names is not followed."""
    monkeypatch.chdir(loose.parent)
    folder = run("autoencoder", loose.name)
    monkeypatch.chdir(loose)
    flags = ["--resume", str(folder), "--epochs", "2"]
    with pytest.raises(BadInput, match=f"add --dataset '{loose}'"):
        parse(autoencoder.Config, flags)
    assert f"--dataset '{loose}'" in Run.go_on
    autoencoder.main(parse(autoencoder.Config, [*flags, "--dataset", str(loose)]))
    assert json.loads((folder / "report.json").read_text())["epochs"] == 2


def test_a_folder_that_cannot_be_used_is_one_line_and_writes_nothing(tmp_path, out):
    (tmp_path / "empty").mkdir()
    for dataset, said in (("imagenet", "--dataset"), (tmp_path / "empty", "holds 0 images")):
        process = run_script("autoencoder.py", "--dataset", dataset, "--out", out, cwd=tmp_path)
        assert (process.returncode, process.stderr.count("\n")) == (2, 1), process.stderr
        assert said in process.stderr
    assert not out.exists()


# Sets that are no digits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fashion", "kmnist"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_sets_dropped_in_as_files_name_their_classes(run, tmp_path, digits, monkeypatch, name, script):
    raw = tmp_path / "data" / {"fashion": "FashionMNIST", "kmnist": "KMNIST"}[name] / "raw"
    raw.mkdir(parents=True)
    for part, of in (("train", "train"), ("t10k", "test")):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(getattr(digits, f"{of}_images").numpy()))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(getattr(digits, f"{of}_labels").numpy()))
    seen = []
    for owner, function in ((infogan.images, "save_grid"), (infogan.images, "save_confusion")):
        original = getattr(owner, function)
        monkeypatch.setattr(
            owner, function, lambda *a, original=original, **k: (seen.append(str((a, k))), original(*a, **k))
        )
    folder = run(script, name)
    assert json.loads((folder / "report.json").read_text())["dataset"] == name
    titled = "Fashion-MNIST" if name == "fashion" else "Kuzushiji-MNIST"
    assert all(titled in text for text in seen)
    if script != "autoencoder":
        assert json.loads((folder / "report.json").read_text())["classes"] == ", ".join(CLASSES[name])
    if script == "infogan":
        assert all(word in text for text in seen for word in CLASSES[name])

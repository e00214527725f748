"""Datasets by name, from idx files, from a server, rendered, from a folder of images; and runs on them."""

import gzip
import hashlib
import http.server
import importlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets

from common import BadInput
from common.data import Dataset, NotAvailable, check_dataset, epoch_order, load_dataset, render_digits, to_float
from common.data.dataset import CLASSES, TITLES
from common.data.image_folder import load_folder, load_image
from common.run.config import ROOT

SETS = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST, "kmnist": datasets.KMNIST}
RAW = "MNIST/raw"
IDX_FILES = tuple(Path(name).stem for name, _ in datasets.MNIST.resources)


def tensors(data: Dataset) -> list[Tensor]:
    return [data.train_images, data.train_labels, data.test_images, data.test_labels]


def test_the_order_visits_each_image_once_and_depends_on_seed_and_epoch_alone():
    first, state = epoch_order(1000, seed=3, epoch=5), torch.manual_seed(123).get_state()
    assert first.sort().values.tolist() == list(range(1000))
    assert torch.equal(epoch_order(1000, seed=3, epoch=5), first)
    assert torch.equal(torch.get_rng_state(), state)
    for seed, epoch in ((3, 6), (4, 5), (5, 3)):
        assert not torch.equal(epoch_order(1000, seed, epoch), first)


@pytest.mark.parametrize("name", ["imagenet", "", "~nobody at all/x", "x" * 5000, "a\0b"])
def test_a_name_that_is_neither_a_set_nor_a_folder_is_refused(name):
    with pytest.raises(BadInput, match="--dataset must be one of auto, mnist, fashion, kmnist, drawn or a folder"):
        check_dataset(name)


def test_drawn_has_the_size_of_mnist_and_smoke_is_a_few_rendered_digits_for_any_name(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("common.data.render_digits", lambda **sizes: asked.append(sizes))
    load_dataset("drawn", tmp_path)
    load_dataset("mnist", tmp_path, smoke=True)
    assert asked == [{}, {"train": 512, "test": 256}]
    assert list(tmp_path.iterdir()) == []


# idx files


def idx_bytes(array: np.ndarray) -> bytes:
    lengths = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes((0, 0, 8, array.ndim)) + lengths + array.astype(np.uint8).tobytes()


def small_set() -> tuple[np.ndarray, ...]:
    """The content of the four files: 20 training images, their labels, 10 test images, their labels."""
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    return images[:20], np.arange(20) % 10, images[20:], np.arange(10)


def write_idx(folder: Path, arrays: Sequence[np.ndarray]) -> Path:
    """Write the four files, not packed. Returns the folder."""
    folder.mkdir(parents=True)
    for name, array in zip(IDX_FILES, arrays, strict=True):
        (folder / name).write_bytes(idx_bytes(array))
    return folder


@pytest.fixture
def data_dir(tmp_path) -> Path:
    """A data folder with the small set, not packed, as MNIST."""
    return write_idx(tmp_path / "data" / RAW, small_set()).parents[1]


def assert_is_small_set(data: Dataset):
    for tensor, expected in zip(tensors(data), small_set(), strict=True):
        assert np.array_equal(tensor.numpy(), expected)


def assert_refused(dataset: str, data_dir: Path, *words: object):
    """One line with these words, and no other set in place of this one."""
    with pytest.raises(BadInput) as error:
        load_dataset(dataset, data_dir)
    assert not isinstance(error.value, NotAvailable)
    assert "\n" not in str(error.value)
    assert [word for word in words if str(word) not in str(error.value)] == []


def test_auto_is_the_published_mnist_if_its_files_are_there(mnist, capsys):
    assert load_dataset("auto", ROOT / "data").name == "mnist"
    assert capsys.readouterr().err == ""
    assert (mnist.name, mnist.title, mnist.source, mnist.factors) == ("mnist", "MNIST", "mnist", None)
    assert [x.shape for x in tensors(mnist)] == [(60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)]
    hashes = [hashlib.sha256(x.numpy().tobytes()).hexdigest()[:8] for x in tensors(mnist)]
    assert hashes == ["741c9888", "e474323a", "6d87418d", "2fd8de6b"]


def pack(folder: Path, files: Sequence[str] = IDX_FILES) -> None:
    for name in files:
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes(), mtime=0))
        (folder / name).unlink()


def move_up(folder: Path) -> None:
    for file in folder.iterdir():
        file.rename(folder.parents[1] / file.name)
    shutil.rmtree(folder.parent)


LAYOUTS = {  # how intact files may lie there
    "one packed": lambda folder: pack(folder, files=IDX_FILES[1:2]),
    "packed beside a damaged one": lambda folder: (pack(folder), (folder / IDX_FILES[1]).write_bytes(b"damaged")),
    "with a dot": lambda folder: [file.rename(folder / file.name.replace("-idx", ".idx")) for file in folder.iterdir()],
    "directly in the data folder": move_up,
}


@pytest.mark.parametrize("arrange", LAYOUTS.values(), ids=LAYOUTS)
def test_intact_files_are_loaded_however_they_lie_there_and_nothing_is_written(data_dir, monkeypatch, arrange):
    arrange(data_dir / RAW)
    for function in ("mkdir", "replace", "rename", "remove"):  # the folder may be read-only, even to root
        monkeypatch.setattr(os, function, lambda *a, **k: pytest.fail("something was written"))
    assert_is_small_set(load_dataset("mnist", data_dir))


@pytest.mark.parametrize("name", SETS)
def test_each_set_has_its_folder_its_classes_and_its_title(data_dir, name):
    (data_dir / "MNIST").rename(data_dir / SETS[name].__name__)
    data = load_dataset(name, data_dir)
    assert_is_small_set(data)
    assert (data.name, data.classes, data.title) == (name, CLASSES[name], TITLES[name])


def test_files_of_two_folders_are_not_mixed(data_dir):
    """Those directly in the data folder may be another set's: all sets have the same file names."""
    raw = write_idx(data_dir / "FashionMNIST" / "raw", small_set())
    move_up(data_dir / RAW)
    (raw / IDX_FILES[1]).unlink()
    assert_refused("fashion", data_dir, raw / IDX_FILES[1], "is missing")


LABELS = IDX_FILES[3]
DAMAGED = {  # the file, what happens to its content, what the message says
    "cut short": (LABELS, lambda content: content[:-1], "damaged"),
    "cut within its header": (LABELS, lambda content: content[:6], "damaged"),
    "an error page": (LABELS, lambda content: b"<html>404 Not Found</html>", "damaged"),
    "packed, an error page": (f"{LABELS}.gz", lambda packed: b"<html>404 Not Found</html>", "damaged"),
    "packed, cut short": (f"{LABELS}.gz", lambda packed: packed[:-9], "damaged"),
    "packed, data altered": (f"{LABELS}.gz", lambda packed: packed[:10] + b"\xff" + packed[11:], "damaged"),
    "packed, checksum altered": (f"{LABELS}.gz", lambda packed: packed[:-8] + bytes(4) + packed[-4:], "damaged"),
    "too few labels": (IDX_FILES[1], lambda content: idx_bytes(np.arange(7)), "7 labels"),
    "a label of 10": (LABELS, lambda content: idx_bytes(np.arange(10) + 1), "up to 10"),
    "images of another size": (IDX_FILES[2], lambda content: idx_bytes(np.zeros((10, 27, 28))), "28 x 28"),
}


@pytest.mark.parametrize(("name", "damage", "word"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named_and_not_replaced_by_rendered_digits(data_dir, name, damage, word):
    if name.endswith(".gz"):
        pack(data_dir / RAW)
    file = data_dir / RAW / name
    file.write_bytes(damage(file.read_bytes()))
    assert_refused("auto", data_dir, file, word)


def test_a_missing_file_and_what_cannot_be_opened_are_named(data_dir):
    file = data_dir / RAW / IDX_FILES[0]
    file.unlink()
    assert_refused("auto", data_dir, file, "is missing")
    file.symlink_to(file)  # which can't be opened, even by root
    assert_refused("auto", data_dir, file, "cannot be read")
    shutil.rmtree(data_dir / "MNIST")
    (data_dir / "MNIST").touch()
    assert_refused("auto", data_dir, data_dir / "MNIST", "cannot be read")


# Downloads


def set_mirrors(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    """Set the servers of all sets."""
    monkeypatch.setenv("no_proxy", "*")
    for source in SETS.values():
        monkeypatch.setattr(source, "mirrors", list(urls))


@pytest.fixture
def offered(data_dir, monkeypatch) -> Iterator[Path]:
    """A folder with the packed small set, which a server offers and torchvision knows. The data folder is gone."""
    pack(data_dir / RAW)
    folder = (data_dir / RAW).rename(data_dir.with_name("offered"))
    shutil.rmtree(data_dir)
    files = [folder / f"{name}.gz" for name in IDX_FILES]
    resources = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in files]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        set_mirrors(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
        yield folder
        server.shutdown()


def test_auto_without_files_and_network_is_rendered_digits_with_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("common.data.render_digits", lambda: render_digits(train=20, test=10))
    set_mirrors(monkeypatch)
    assert load_dataset("auto", tmp_path).name == "drawn"
    warning = capsys.readouterr().err
    for words in ("RENDERED", "Nothing below is a result on MNIST", str(tmp_path / RAW), "!" * 70):
        assert words in warning
    assert list(tmp_path.iterdir()) == []


def test_a_named_set_that_is_not_available_is_one_line_that_names_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("common.data.mnist.TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        set_mirrors(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(NotAvailable, match="nothing arrived") as error:
            load_dataset("kmnist", tmp_path)
    assert str(tmp_path / "KMNIST" / "raw") in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_download_leaves_the_four_packed_files_and_nothing_else(offered, data_dir, monkeypatch):
    assert_is_small_set(load_dataset("mnist", data_dir))
    set_mirrors(monkeypatch)
    assert_is_small_set(load_dataset("mnist", data_dir))
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(data_dir / RAW / f"{name}.gz" for name in IDX_FILES)


def test_a_download_of_a_damaged_file_leaves_nothing(offered, data_dir):
    (offered / f"{IDX_FILES[3]}.gz").write_bytes(b"<html>please log in</html>")
    with pytest.raises(NotAvailable, match=IDX_FILES[3]):
        load_dataset("mnist", data_dir)
    assert not data_dir.exists()


# Rendered digits


def test_the_seed_decides_everything_and_the_digits_of_seed_0_stay_what_they_are():
    """A run is resumed only on the same images. The tolerances are for the rounding of other processors."""
    before = torch.manual_seed(7).get_state()
    data, *sets = [render_digits(512, 256), *(render_digits(50, 20, seed) for seed in (0, 0, 1))]
    first, same, other = ([*tensors(data), *data.factors.values()] for data in sets)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, first, same))
    assert not any(map(torch.equal, first, other))
    factors = [data.factors[name][0].item() for name in ("slant", "thickness")]
    ink = to_float(data.train_images[:4]).mean(dim=(1, 2, 3)).tolist()
    assert data.train_labels[:12].tolist() == [7, 1, 8, 4, 8, 2, 5, 4, 8, 1, 1, 2]
    assert factors == pytest.approx([-0.026931, 3.598999], abs=1e-5)
    assert ink == pytest.approx([0.10266, 0.06489, 0.10704, 0.05121], abs=1e-3)


def test_rendered_digits_are_like_mnist_and_their_factors_are_seen():
    """The upper half of a digit with positive slant lies further right than the lower; a thick one has more ink."""
    digits = render_digits(train=2000, test=500)
    assert (digits.title, digits.source) == ("rendered digits (not MNIST)", "drawn")
    assert digits.classes == tuple("0123456789")
    assert [x.shape for x in tensors(digits)] == [(2000, 28, 28), (2000,), (500, 28, 28), (500,)]
    for labels in (digits.train_labels, digits.test_labels):
        assert (torch.bincount(labels, minlength=10) / len(labels)).sub(0.1).abs().max() < 0.05
    ink, axis = to_float(digits.train_images).squeeze(1), torch.arange(28.0)
    upper, lower = (half.sum(dim=1) @ axis / half.sum(dim=(1, 2)).clamp_min(1) for half in ink.split(14, dim=1))
    mass = ink.sum(dim=(1, 2))
    expected = {"slant": (-0.3, 0.3, upper - lower), "thickness": (2.2, 4.5, mass)}
    for name, (low, high, seen) in expected.items():
        factor = digits.factors[name]
        assert low <= factor.min() < low + 0.02
        assert high - 0.02 < factor.max() <= high
        assert torch.corrcoef(torch.stack((factor[:2000], seen)))[0, 1] > 0.5
    for centre in (ink.sum(dim=1) @ axis / mass, ink.sum(dim=2) @ axis / mass):
        assert centre.sub(13.5).abs().max() < 2.5
    assert (ink.amax(dim=(1, 2)) == 1).float().mean() > 0.95  # white on black, with smooth edges
    assert 0.05 < ink.mean() < 0.25
    assert 0.02 < ((ink > 0) & (ink < 1)).float().mean() < 0.3


# A folder of images

NAMES = ("round", "a slim one with a tail", "ほか")


def save_images(folder: Path, images: Tensor, classes: Sequence[str] = ("",)) -> Path:
    """Write images (n, 28, 28) as 000.png, 001.png …, in turn into the sub-folders `classes`. Returns the folder."""
    for i, image in enumerate(images.numpy()):
        file = folder / classes[i % len(classes)] / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return folder


def parts_of(data: Dataset) -> list[set[bytes]]:
    """The training images and the test images."""
    return [{image.numpy().tobytes() for image in x} for x in (data.train_images, data.test_images)]


@pytest.fixture
def loose(tmp_path, tiny) -> Path:
    return save_images(tmp_path / "my pictures", tiny.train_images)


def test_loose_images_and_one_sub_folder_have_no_labels_and_each_image_is_in_one_part(loose, tiny):
    data = load_folder(loose)
    assert (data.name, data.source, data.classes) == (loose.name, str(loose), ())
    assert data.title == f"the folder {loose.name}"
    assert (data.train_labels, data.test_labels, data.warnings) == (None, None, ())
    number = {image.numpy().tobytes(): i for i, image in enumerate(tiny.train_images)}
    train, test = ([number[image.numpy().tobytes()] for image in x] for x in (data.train_images, data.test_images))
    assert sorted(train + test) == list(range(128))
    assert 10 <= len(test) <= 26  # about one in seven
    assert train != sorted(train), "not shuffled"
    one = load_folder(loose.parent)
    assert (one.classes, one.train_labels, "no classes (1 sub-folders" in one.note) == ((), None, True)


def test_added_renamed_folders_and_removed_images_move_no_other_between_training_and_test(loose, tiny):
    """The split hangs on each file's own name and content, so that a training image never becomes a test image."""
    train, test = parts_of(load_folder(loose))
    for i, image in enumerate(tiny.test_images.numpy()):
        Image.fromarray(image).save(loose / f"0{i:02d}-new.png")
    for file in sorted(loose.glob("???.png"))[:20]:
        file.unlink()
    data = load_folder(loose.rename(loose.with_name("elsewhere")))
    later_train, later_test = parts_of(data)
    assert len(data.train_images) + len(data.test_images) == 128 + 64 - 20
    assert not train & later_test
    assert not test & later_train


@pytest.mark.parametrize(("train", "test", "classes"), [("train", "validation", [""]), ("Train", "TEST", NAMES)])
def test_training_and_test_folders_are_the_parts_and_no_classes(tmp_path, tiny, train, test, classes):
    save_images(tmp_path / "set" / train, tiny.train_images, classes)
    save_images(tmp_path / "set" / test, tiny.test_images, classes)
    data = load_folder(tmp_path / "set")
    assert parts_of(data) == parts_of(tiny)
    assert data.classes == (() if classes == [""] else tuple(sorted(NAMES)))
    assert f"128 in {train} and 64 in {test}" in data.note


def test_parts_with_other_classes_are_refused_and_a_third_part_is_left_out(tmp_path, tiny):
    for part, images in (("train", tiny.train_images), ("test", tiny.test_images), ("val", tiny.test_images)):
        save_images(tmp_path / part, images, NAMES)
    assert "passed over 1 × folder val" in load_folder(tmp_path).note
    (tmp_path / "test" / "round").rename(tmp_path / "test" / "square")
    assert_refused(str(tmp_path), tmp_path, tmp_path, "other class folders: round, square")
    shutil.rmtree(tmp_path / "test" / "square")
    shutil.rmtree(tmp_path / "val")
    for file in sorted((tmp_path / "test").rglob("*.png"))[5:]:
        file.unlink()
    assert_refused(str(tmp_path), tmp_path, tmp_path / "test", "holds 5 images")


def test_sub_folders_are_classes_in_the_order_of_their_names_and_in_both_parts(tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = save_images(tmp_path / "my classes", tiny.train_images, NAMES)
    data = load_dataset("~/my classes", tmp_path)
    assert data.classes == ("a slim one with a tail", "round", "ほか")
    files = {np.array(Image.open(file)).tobytes(): file.parent.name for file in folder.rglob("*.png")}
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert labels.dtype == torch.int64
        assert [files[image.numpy().tobytes()] for image in images] == [data.classes[label] for label in labels]
        assert min(torch.bincount(labels, minlength=3)) >= 2
        assert labels.tolist() != sorted(labels.tolist()), "not shuffled"
    torch.manual_seed(3)
    assert all(map(torch.equal, tensors(load_folder(folder)), tensors(data))), "the random state has an influence"


@pytest.mark.parametrize("count", [100, 101])
def test_up_to_a_hundred_sub_folders_are_classes(tmp_path, tiny, count):
    names = tuple(f"{number:03d}" for number in range(count))
    data = load_folder(save_images(tmp_path / "many", tiny.train_images, names))
    assert data.classes == (names if count == 100 else ())
    assert ("101 sub-folders; 2 to 100 are told apart" in data.note) == (count == 101)


def test_the_note_says_in_one_line_what_was_loaded_and_folders_of_systems_are_passed_over(tmp_path, tiny):
    folder = save_images(tmp_path / "pictures", 255 - tiny.train_images, NAMES)
    save_images(folder / "@eaDir", tiny.test_images)
    (folder / "round" / "labels.csv").write_text("1")
    (folder / "README").write_text("mine")
    said = "loaded 128 images, 3 classes, grey values 0 to 255 of 0 to 255, inverted, passed over "
    assert load_folder(folder).note == f"{said}1 × README, 1 × folder @eaDir, 1 × .csv"


def test_ink_on_paper_is_inverted_as_a_whole_and_hidden_files_are_ignored(loose, tiny, tmp_path):
    inverted = save_images(tmp_path / "inverted", 255 - tiny.train_images)
    (inverted / ".thumb.png").write_bytes(b"not an image")
    shutil.copytree(inverted, inverted / ".cache")
    assert set.union(*parts_of(load_folder(inverted))) == set.union(*parts_of(load_folder(loose)))


def rgba(ink: int) -> Image.Image:
    """A square on a transparent ground, under which lies a colour that must not show."""
    image = np.full((28, 28, 4), (255 - ink, 255 - ink, 255 - ink, 0), np.uint8)
    image[10:18, 10:18] = (ink, ink, ink, 255)
    return Image.fromarray(image)


GREYS = np.arange(784).reshape(28, 28).astype(np.uint8)
GREY, TURNED, HALF_TURN = Image.fromarray(GREYS), GREYS[::-1, ::-1], Image.Exif()
HALF_TURN[0x0112] = 3
WIDE = np.full((56, 112), 20, np.uint8)  # a bright square left of the middle of a dark image
WIDE[8:48, 36:76] = 220
FINE_BOARD = Image.fromarray((np.indices((280, 280)).sum(axis=0) % 2 * 255).astype(np.uint8))
IMAGES = {  # an image, options when it is saved, what must hold for what is loaded
    "turned as its EXIF says": (GREY, {"exif": HALF_TURN}, lambda x: np.array_equal(x, TURNED)),
    "one grey transparent": (GREY, {"transparency": 3}, lambda x: x[0, :5].tolist() == [0, 1, 2, 255, 4]),
    "red": (Image.new("RGB", (28, 28), (255, 0, 0)), {}, lambda x: (x == 76).all()),  # 0.299 of 255
    "16 bits": (Image.fromarray(np.full((28, 28), 30_000, np.uint16)), {}, lambda x: (x == 30_000).all()),
    "bright on nothing": (rgba(255), {}, lambda x: (x[12, 12], x[0, 0]) == (255, 0)),
    "dark on nothing": (rgba(0), {}, lambda x: (x[12, 12], x[0, 0]) == (0, 255)),
    "averaged over all pixels": (FINE_BOARD, {}, lambda x: 120 <= x.min() <= x.max() <= 135),
    "centred": (Image.fromarray(WIDE), {}, lambda x: (x[:7] == 20).all() and (x[-7:] == 20).all()),
    "not stretched": (Image.fromarray(WIDE), {}, lambda x: [(x > 120).any(axis=i).sum() for i in (0, 1)] == [10, 10]),
}


@pytest.mark.parametrize(("image", "options", "holds"), IMAGES.values(), ids=IMAGES)
def test_an_image_becomes_grey_and_28_pixels_wide(tmp_path, image, options, holds):
    image.save(tmp_path / "a.png", **options)
    pixels, _ = load_image(tmp_path / "a.png")
    assert pixels.shape == (28, 28)
    assert holds(pixels)


STORED = {  # how the pixels 0 … 255 of a set are stored, the scale that is noted
    "16 bits": (lambda x: (x * 257.0).astype(np.uint16), "0 to 65535"),
    "12 bits in 16": (lambda x: (x * (4095 / 255)).round().astype(np.uint16), "0 to 4095"),
    "floats from -1 to 1": (lambda x: x.astype(np.float32) / 127.5 - 1, "-1 to 1"),
    "8 bits, some 16": (lambda x: x if x[14, 14] else (x * 257.0).astype(np.uint16), "0 to 65535 and"),
}


@pytest.mark.parametrize(("store", "scale"), STORED.values(), ids=STORED)
def test_a_set_has_one_scale_however_its_pixels_are_stored(tmp_path, tiny, store, scale):
    (tmp_path / "stored").mkdir()
    for i, image in enumerate(tiny.train_images.numpy()):
        Image.fromarray(store(image)).save(tmp_path / "stored" / f"{i:03d}.tif")
    data = load_folder(tmp_path / "stored")
    found = torch.cat((data.train_images, data.test_images)).flatten(1).float()
    assert torch.cdist(tiny.train_images.flatten(1).float(), found).min(dim=1).values.max() <= 28  # one grey a pixel
    assert f"of {scale}" in data.note


def test_masks_of_0_and_1_are_black_and_white(tmp_path, tiny):
    data = load_folder(save_images(tmp_path / "masks", (tiny.train_images > 127).byte()))
    assert data.train_images.unique().tolist() == [0, 255]


def test_a_doubtful_set_is_warned_of(tmp_path, tiny):
    mixed = torch.cat((tiny.train_images[:100], 255 - tiny.train_images[100:]))
    copies = tiny.train_images[:2].repeat(60, 1, 1)
    for images, words in ((mixed, "ink on paper"), (copies, "test images are training images")):
        data = load_folder(save_images(tmp_path / words, images))
        assert [words in warning for warning in data.warnings] == [True]


NO_NUMBERS = np.full((28, 28), np.nan, np.float32)
ONE_GREY, FEW_GREYS = torch.ones(128, 28, 28).byte(), torch.arange(128 * 784).remainder(3).view(128, 28, 28).byte() + 90
FAULTS = {  # sub-folders, harm, words of the message
    "99 images": ([""], lambda f: [file.unlink() for file in sorted(f.iterdir())[99:]], ["holds 99 images"]),
    "another kind": ([""], lambda f: [x.rename(x.with_suffix(".svg")) for x in f.iterdir()], ["over 128 × .svg"]),
    "images beside": (NAMES, lambda f: shutil.copy(f / "round" / "000.png", f), ["both beside and in its", *NAMES]),
    "all the same": ([""], lambda f: save_images(f, ONE_GREY), ["the same"]),
    "no contrast": ([""], lambda f: save_images(f, FEW_GREYS), ["no contrast", "90 to 92"]),
    "a cut file": ([""], lambda f: os.truncate(f / "000.png", 100), ["000.png: cannot be read as an image"]),
    "text": ([""], lambda f: (f / "000.png").write_text("text" * 30), ["000.png: cannot be read as an image"]),
    "no numbers": ([""], lambda f: Image.fromarray(NO_NUMBERS).save(f / "000.tif"), ["000.tif: cannot", "no numbers"]),
}


@pytest.mark.parametrize(("classes", "harm", "words"), FAULTS.values(), ids=FAULTS)
def test_a_folder_that_cannot_be_used_is_named(tmp_path, tiny, classes, harm, words):
    folder = save_images(tmp_path / "pictures", tiny.train_images, classes)
    harm(folder)
    assert_refused(str(folder), tmp_path, folder, *words)


def test_a_folder_without_rights_is_named(tmp_path, monkeypatch):
    def refuse(path: Path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)  # chmod does not hold root back
    assert_refused(str(tmp_path), tmp_path, tmp_path, "Permission denied")


# Runs on other sets than MNIST


@pytest.fixture
def train(tmp_path, out, monkeypatch) -> Callable[..., tuple[dict, list[str], Path]]:
    """Call a script's main with a quick guide and few images per code. Returns the report, the columns, the folder."""
    monkeypatch.setattr("common.look.infogan.PER_CATEGORY", 20)
    monkeypatch.setattr("common.train.guide.UPDATES", 5)

    def call(script: str, dataset: object):
        main, fields = importlib.import_module(script), {"epochs": 1, "batch_size": 37, "device": "cpu", "quiet": True}
        report = main.main(main.Config(dataset=str(dataset), data_dir=tmp_path / "data", out=out, **fields))
        folder = Path(report["folder"])
        return report, (folder / "metrics.csv").read_text().splitlines()[0].split(","), folder

    return call


LABELLED = {"classes", "accuracy", "share_distance", "frechet", "normalised_mutual_information", "classifier_accuracy"}


@pytest.mark.parametrize("script", ["infogan", "gan_mlp", "autoencoder"])
def test_a_run_without_labels_leaves_out_what_needs_them(train, loose, tmp_path, script):
    report, columns, folder = train(script, loose)
    assert report["dataset"] == "my pictures"
    assert not LABELLED & {*report, *columns}
    assert not {"confusion.png", "digits.png"} & {path.name for path in folder.iterdir()}
    assert not (tmp_path / "data").exists(), "a classifier was trained"
    importlib.import_module(script).load(folder)


RUNS = {  # the folder's or set's classes, and its title
    "infogan": ("mine", ("other", "round", "slim"), "folder mine"),
    "gan_mlp": ("mine", ("other", "round", "slim"), "folder mine"),
    "autoencoder": ("fashion", (), TITLES["fashion"]),
}


@pytest.mark.parametrize("script", RUNS)
def test_a_run_names_its_set_and_classes_and_is_measured_against_them(train, tmp_path, tiny, monkeypatch, script):
    (name, classes, title), texts = RUNS[script], []
    given = save_images(tmp_path / "mine", tiny.train_images, classes) if name == "mine" else name
    write_idx(tmp_path / "data" / "FashionMNIST" / "raw", [x.numpy() for x in tensors(tiny)])
    for module, function in (("figures", "save_grid"), ("plots", "save_confusion")):
        save = getattr(importlib.import_module(f"common.look.{module}"), function)
        spy = lambda *a, f=save, **k: texts.append(str((a, k))) or f(*a, **k)  # noqa: E731
        monkeypatch.setattr(f"common.look.{module}.{function}", spy)
    report, columns, folder = train(script, given)
    assert (report["dataset"], report.get("classes", "")) == (name, ", ".join(classes))
    assert texts
    assert all(title in text for text in texts)
    if script == "infogan":
        assert all(word in text for text in texts for word in classes)
        assert (folder / "confusion.png").exists()
    if script == "gan_mlp":
        assert [name for name in columns if name.startswith("share_")] == [f"share_{name}" for name in classes]
        assert (folder / "digits.png").exists()
    assert (report.get("classifier_accuracy", 0) > 0) == (script != "autoencoder")

"""Real MNIST, idx files with every kind of damage, and servers that do not answer."""

import contextlib
import gzip
import hashlib
import http.server
import os
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from common import BadInput
from common.data import Dataset, drawn, load_dataset
from common.data.dataset import CLASSES, TITLES
from common.data.mnist import NotAvailable
from common.settings import ROOT
from tests.conftest import MNIST_FILES

SETS = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST, "kmnist": datasets.KMNIST}
RAW = "MNIST/raw"


def assert_named(path, data_dir, dataset: str = "mnist", said: str = ""):
    with pytest.raises(BadInput) as error:
        load_dataset(dataset, data_dir)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_auto_is_the_published_mnist_where_its_files_are(mnist, capsys):
    assert load_dataset("auto", ROOT / "data").name == "mnist"
    assert capsys.readouterr().err == ""
    assert (mnist.name, mnist.title, mnist.factors) == ("mnist", "MNIST", None)
    assert (mnist.train_images.shape, mnist.test_images.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert (mnist.train_images.dtype, mnist.train_labels.dtype) == (torch.uint8, torch.int64)
    assert mnist.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.train_images.float().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)
    expected = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(mnist.train_labels).tolist() == expected


def idx_bytes(array: np.ndarray) -> bytes:
    lengths = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes((0, 0, 8, array.ndim)) + lengths + array.astype(np.uint8).tobytes()


def small_set() -> tuple[np.ndarray, ...]:
    """The content of the four files: 20 training images, their labels, 10 test images, their labels."""
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    return images[:20], np.arange(20) % 10, images[20:], np.arange(10)


def write_raw(folder: Path, arrays: Iterable[np.ndarray]) -> Path:
    """Write the four files, unpacked, as torchvision leaves them. Returns the folder."""
    folder.mkdir(parents=True)
    for name, array in zip(MNIST_FILES, arrays, strict=True):
        (folder / name).write_bytes(idx_bytes(array))
    return folder


@pytest.fixture
def raw(tmp_path):
    """The folder data/MNIST/raw with the small set, unpacked."""
    return write_raw(tmp_path / "data" / RAW, small_set())


@pytest.fixture
def packed(raw, monkeypatch):
    """The same with four packed files, whose checksums torchvision knows."""
    resources = []
    for name in MNIST_FILES:
        content = gzip.compress((raw / name).read_bytes(), mtime=0)
        (raw / name).unlink()
        (raw / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return raw


def assert_is_small_set(data: Dataset):
    tensors = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    for tensor, expected in zip(tensors, small_set(), strict=True):
        assert np.array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize("name", SETS)
def test_unpacked_files_of_each_set_are_read_as_they_are(raw, name):
    raw.parent.rename(raw.parents[1] / SETS[name].__name__)
    data = load_dataset(name, raw.parents[1])
    assert_is_small_set(data)
    assert (data.name, data.classes, data.title) == (name, CLASSES[name], TITLES[name])


DAMAGE = {
    "cut short": lambda content: content[:-1],
    "cut within its header": lambda content: content[:6],
    "emptied": lambda content: b"",
    "lengthened": lambda content: content + b"\0",
    "one bit altered": lambda content: bytes([*content[:3], content[3] ^ 1]) + content[4:],
    "wrong type": lambda content: bytes((0, 0, 13)) + content[3:],
    "wrong count": lambda content: content[:4] + (10_000).to_bytes(4, "big") + content[8:],
    "absurd count": lambda content: content[:4] + bytes((255, 255, 255, 255)) + content[8:],
    "an error page": lambda content: b"<html>404 Not Found</html>",
    "garbage": lambda content: b"garbage " * 100,
}


@pytest.mark.parametrize("name", MNIST_FILES)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("suffix", ["", ".gz"], ids=["raw", "packed"])
def test_a_damaged_file_is_named_and_not_replaced_by_drawn_digits(raw, suffix, damage, name):
    path = raw / f"{name}{suffix}"
    content = damage((raw / name).read_bytes())
    (raw / name).unlink()
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert_named(path, path.parents[2], "auto")


DAMAGED_ARCHIVES = {
    "cut short": lambda content: content[:-9],
    "a bit altered": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "an error page": DAMAGE["an error page"],
    "emptied": DAMAGE["emptied"],
}


@pytest.mark.parametrize("damage", DAMAGED_ARCHIVES.values(), ids=DAMAGED_ARCHIVES)
def test_a_damaged_archive_is_named(packed, damage):
    path = packed / f"{MNIST_FILES[0]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    assert_named(path, packed.parents[1])


OTHER_NAMES = {  # what intact files may be called beside their servers' names
    "with a dot": lambda raw: [path.rename(raw / path.name.replace("-idx", ".idx")) for path in raw.iterdir()],
    "directly in the data folder": lambda raw: [path.rename(raw.parents[1] / path.name) for path in raw.iterdir()],
    "packed anew": lambda raw: [
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1)) for path in raw.iterdir()
    ],
}


@pytest.mark.parametrize("rename", OTHER_NAMES.values(), ids=OTHER_NAMES)
def test_intact_files_are_read_under_other_names(packed, rename):
    rename(packed)
    assert_is_small_set(load_dataset("mnist", packed.parents[1]))


UNFIT = {
    "too few labels": ("labels-idx1-ubyte", np.arange(7)),
    "no labels": ("labels-idx1-ubyte", np.arange(0)),
    "a label of 10": ("labels-idx1-ubyte", np.full(20, 10)),
    "images of another size": ("images-idx3-ubyte", np.zeros((20, 27, 28))),
    "no images": ("images-idx3-ubyte", np.zeros((0, 28, 28))),
}


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize(("kind", "array"), UNFIT.values(), ids=UNFIT)
def test_files_that_do_not_fit_together_name_their_folder_and_part(raw, part, kind, array):
    (raw / f"{part}-{kind}").write_bytes(idx_bytes(array[: 20 if part == "train" else 10]))
    assert_named(raw, raw.parents[1], said=f"the {part} ")


PUT = {"missing": lambda path: None, "a file": Path.touch, "a folder": Path.mkdir}
PLACES = [
    *(("missing", f"{RAW}/{name}") for name in MNIST_FILES),
    *(("a file", place) for place in ("", "MNIST", RAW)),
    ("a folder", f"{RAW}/{MNIST_FILES[2]}"),
]


@pytest.mark.parametrize("dataset", ["auto", "mnist"])
@pytest.mark.parametrize(("what", "place"), PLACES)
def test_a_missing_file_and_what_is_put_in_the_place_of_a_file_or_folder_are_named(raw, dataset, what, place):
    path = raw.parents[1] / place
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    PUT[what](path)
    assert_named(path, raw.parents[1], dataset, "is missing" if what == "missing" else "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("dataset", ["auto", "mnist"])
@pytest.mark.parametrize("name", ["", MNIST_FILES[0]], ids=["folder", "file"])
def test_a_file_or_folder_without_rights_is_named(raw, dataset, name):
    (raw / name).chmod(0)
    assert_named(raw / name, raw.parents[1], dataset)
    (raw / name).chmod(0o700)  # so that pytest can remove it


# The network ----------------------------------------------------------------------------------------------------


def set_mirrors(monkeypatch, *urls: str, patience: float = 1.0):
    """Set the servers of all sets and the patience with them, without a proxy."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("common.data.mnist.DOWNLOAD_PATIENCE", patience)
    for source in SETS.values():
        monkeypatch.setattr(source, "mirrors", list(urls))


class Stalling(http.server.SimpleHTTPRequestHandler):
    """Answers HEAD, never GET."""

    def do_GET(self):
        self.server.released.wait(20)


class Silent(Stalling):
    do_HEAD = Stalling.do_GET


@contextlib.contextmanager
def server(folder: Path, handler: type = http.server.SimpleHTTPRequestHandler):
    """The address of a server of the files in a folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=folder)) as running:
        running.released = threading.Event()
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.released.set()
        running.shutdown()


def test_auto_without_files_and_network_is_drawn_with_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("common.data.drawn", lambda: drawn(train=20, test=10))
    with server(tmp_path, Silent) as url:
        set_mirrors(monkeypatch, url, patience=0.2)
        assert load_dataset("auto", tmp_path).name == "drawn"
    warning = capsys.readouterr().err
    for said in ("DRAWN", "Nothing below is a result on MNIST", str(tmp_path / RAW), "!" * 70):
        assert said in warning
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SETS)
def test_a_named_set_that_is_not_available_is_an_error_that_names_its_folder(tmp_path, monkeypatch, name):
    set_mirrors(monkeypatch)
    assert_named(tmp_path / SETS[name].__name__ / "raw", tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def assert_given_up(data_dir, within: float):
    start = time.perf_counter()
    with pytest.raises(NotAvailable):
        load_dataset("mnist", data_dir)
    assert time.perf_counter() - start < within
    assert not [path for path in data_dir.rglob("*") if path.is_file()]


@pytest.mark.parametrize("handler", [Silent, Stalling])
def test_servers_that_do_not_answer_are_given_up_in_time(tmp_path, monkeypatch, handler):
    with server(tmp_path, handler) as one, server(tmp_path, handler) as other:
        set_mirrors(monkeypatch, one, other, patience=0.5)
        assert_given_up(tmp_path, within=5)


def test_servers_that_are_not_there_are_given_up_at_once(tmp_path, monkeypatch):
    set_mirrors(monkeypatch, "http://127.0.0.1:9/", "http://127.0.0.1:port/", "no address at all", patience=30.0)
    assert_given_up(tmp_path, within=15)


def test_a_download_leaves_the_four_packed_files_and_nothing_else(packed, tmp_path, monkeypatch):
    there = packed.rename(tmp_path / "there")
    with server(there, Silent) as dead, server(there) as url:
        set_mirrors(monkeypatch, url, dead)
        assert_is_small_set(load_dataset("mnist", packed.parents[1]))
    assert sorted(path.name for path in packed.iterdir()) == sorted(path.name for path in there.iterdir())
    assert_is_small_set(load_dataset("mnist", packed.parents[1]))


@pytest.mark.parametrize("name", [MNIST_FILES[0], MNIST_FILES[3]])
def test_a_download_of_a_damaged_file_leaves_nothing(packed, tmp_path, monkeypatch, name):
    there = packed.rename(tmp_path / "there")
    (there / f"{name}.gz").write_bytes(b"<html>please log in</html>")
    with server(there) as url:
        set_mirrors(monkeypatch, url)
        with pytest.raises(NotAvailable):
            load_dataset("mnist", packed.parents[1])
    assert list(packed.iterdir()) == []

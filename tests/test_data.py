"""Drawn digits, the order of training, real files with every kind of damage, and a network that does not answer."""

import contextlib
import gzip
import hashlib
import http.server
import os
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import torch
from torchvision import datasets

import common.data
from common import BadInput
from common.data import Dataset, NotAvailable, drawn, epoch_order, load_dataset, to_float
from common.run import Run
from infogan import Config
from tests.conftest import MNIST_FILES
from tests.helpers import CPU

# Drawn digits ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return drawn(train=2000, test=500)


def test_drawn_has_the_shapes_and_types_of_mnist(digits):
    assert digits.name == "drawn"
    assert "not MNIST" in digits.title
    assert digits.classes == tuple("0123456789")
    assert (digits.train_images.shape, digits.train_labels.shape) == ((2000, 28, 28), (2000,))
    assert (digits.test_images.shape, digits.test_labels.shape) == ((500, 28, 28), (500,))
    assert digits.train_images.dtype == digits.test_images.dtype == torch.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == torch.int64


def test_drawn_is_decided_by_its_seed(digits):
    same, other = drawn(train=2000, test=500), drawn(train=2000, test=500, seed=1)
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(same, part), getattr(digits, part)), part
        assert not torch.equal(getattr(other, part), getattr(digits, part)), part
    for name, factor in digits.factors.items():
        assert torch.equal(same.factors[name], factor)
        assert not torch.equal(other.factors[name], factor)


def test_drawn_leaves_the_global_random_state_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    drawn(train=10, test=10)
    assert torch.equal(torch.get_rng_state(), before)


def test_drawn_holds_every_class_about_equally_often(digits):
    for labels in (digits.train_labels, digits.test_labels):
        share = torch.bincount(labels, minlength=10) / len(labels)
        assert share.shape == (10,)
        assert share.sub(0.1).abs().max() < 0.05


def test_drawn_factors_fill_their_ranges(digits):
    for name, low, high in (("slant", -0.3, 0.3), ("thickness", 2.2, 4.5)):
        factor = digits.factors[name]
        assert factor.shape == (2500,)
        assert factor.dtype == torch.float32
        assert low <= factor.min() < low + 0.02
        assert high - 0.02 < factor.max() <= high
        assert factor.mean().item() == pytest.approx((low + high) / 2, abs=0.05)


def test_drawn_digits_are_centred_by_their_mass_and_clear_of_the_border(digits):
    ink = to_float(digits.train_images).squeeze(1)
    axis, mass = torch.arange(28.0), ink.sum(dim=(1, 2))
    x, y = ink.sum(dim=1) @ axis / mass, ink.sum(dim=2) @ axis / mass
    for centre in (x, y):
        assert centre.mean().item() == pytest.approx(13.5, abs=0.1)
        assert centre.sub(13.5).abs().max() < 2.5
    border = torch.ones(28, 28, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert ink[:, border].mean() < 0.01


def test_drawn_digits_are_white_on_black_with_smooth_edges(digits):
    images = digits.train_images
    brightest = images.amax(dim=(1, 2))
    assert (brightest == 255).float().mean() > 0.95
    assert brightest.min() > 127
    assert (images.amin(dim=(1, 2)) == 0).all()
    assert 0.05 < to_float(images).mean() < 0.25
    assert 0.02 < ((images > 0) & (images < 255)).float().mean() < 0.3


def test_drawn_digits_of_a_class_resemble_each_other_more_than_others(digits):
    x = to_float(digits.train_images).flatten(1)
    means = torch.stack([x[digits.train_labels == digit].mean(dim=0) for digit in range(10)])
    nearest = torch.cdist(to_float(digits.test_images).flatten(1), means).argmin(dim=1)
    assert (nearest == digits.test_labels).float().mean() > 0.6


def test_to_float_maps_0_to_255_onto_0_to_1_and_leaves_its_input():
    images = torch.arange(256, dtype=torch.uint8).repeat(49)[: 16 * 784].view(16, 28, 28)
    before = images.clone()
    x = to_float(images)
    assert x.shape == (16, 1, 28, 28)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (0, 1)
    assert torch.equal((x * 255).round().byte().squeeze(1), images)
    assert torch.equal(images, before)


def test_smoke_draws_a_few_digits_whatever_is_asked_for(tmp_path):
    data = load_dataset("mnist", tmp_path, smoke=True)
    assert data.name == "drawn"
    assert len(data.train_images) < 1000
    assert list(tmp_path.iterdir()) == []


def test_drawn_by_name_has_the_size_of_mnist(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(common.data, "drawn", lambda *args, **kwargs: asked.append((args, kwargs)))
    load_dataset("drawn", tmp_path)
    assert asked == [((), {})]
    assert drawn.__defaults__[:2] == (60_000, 10_000)


# The order of training ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_an_epoch_visits_each_image_once(n):
    assert epoch_order(n, seed=3, epoch=5).sort().values.tolist() == list(range(n))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    first = epoch_order(1000, seed=3, epoch=5)
    torch.manual_seed(123)
    torch.rand(10)
    assert torch.equal(epoch_order(1000, seed=3, epoch=5), first)
    for seed, epoch in ((3, 6), (4, 5), (5, 3)):
        assert not torch.equal(epoch_order(1000, seed, epoch), first)


def test_asking_for_an_order_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    epoch_order(1000, seed=3, epoch=5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch_size", [64, 50, 128])
def test_the_batches_of_a_run_visit_each_image_once_per_epoch(out, tiny, batch_size):
    run = Run(Config(out=out, epochs=2, batch_size=batch_size), "infogan", tiny, CPU, "float32")
    run.keep(weight=torch.zeros(1))
    orders = []
    for _ in run.remaining_epochs():
        batches = []
        for batch in run.batches():
            batches.append(batch)
            run.add(loss=torch.tensor(1.0))
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        orders.append(torch.cat(batches))
        run.finish_epoch(run.means())
    assert len(orders) == 2
    assert all(order.sort().values.tolist() == list(range(128)) for order in orders)
    assert not torch.equal(*orders)


# Real MNIST -----------------------------------------------------------------------------------------------------


def test_mnist_has_its_shapes_and_types(mnist):
    assert (mnist.name, mnist.title, mnist.factors) == ("mnist", "MNIST", None)
    assert (mnist.train_images.shape, mnist.test_images.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert mnist.train_images.dtype == torch.uint8
    assert mnist.train_labels.dtype == torch.int64


def test_mnist_has_its_first_labels(mnist):
    assert mnist.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.test_labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_mnist_has_its_mean_and_its_class_sizes(mnist):
    assert mnist.train_images.float().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)
    expected = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(mnist.train_labels).tolist() == expected


def test_auto_takes_mnist_where_it_is(mnist, capsys):
    assert load_dataset("auto", common.run.ROOT / "data").name == "mnist"
    assert capsys.readouterr().err == ""


# Files: a set of 20 + 10 images, built here ---------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    lengths = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes((0, 0, 8, array.ndim)) + lengths + array.astype(np.uint8).tobytes()


def small_set() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    parts = {"train": 20, "t10k": 10}
    arrays = {f"{part}-images-idx3-ubyte": random.integers(0, 256, (n, 28, 28)) for part, n in parts.items()}
    return arrays | {f"{part}-labels-idx1-ubyte": np.arange(n) % 10 for part, n in parts.items()}


@pytest.fixture
def raw(tmp_path):
    """The folder data/MNIST/raw with four unpacked files, as torchvision leaves them."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in small_set().items():
        (folder / name).write_bytes(idx_bytes(array))
    return folder


@pytest.fixture
def packed(raw, monkeypatch):
    """The same with four packed files, whose checksums are the known ones."""
    resources = []
    for name in MNIST_FILES:
        content = gzip.compress((raw / name).read_bytes(), mtime=0)
        (raw / name).unlink()
        (raw / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return raw


def load_raw(raw) -> Dataset:
    return load_dataset("mnist", raw.parents[1])


def assert_is_small_set(data: Dataset):
    expected = small_set()
    for part, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("t10k", data.test_images, data.test_labels),
    ):
        assert np.array_equal(images.numpy(), expected[f"{part}-images-idx3-ubyte"])
        assert np.array_equal(labels.numpy(), expected[f"{part}-labels-idx1-ubyte"])


def test_unpacked_files_are_read_as_they_are(raw):
    assert_is_small_set(load_raw(raw))


def test_packed_files_are_read_as_they_are(packed):
    assert_is_small_set(load_raw(packed))


@pytest.mark.parametrize("name", MNIST_FILES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:12],
        lambda content: b"",
        lambda content: content[:25] + bytes([content[25] ^ 1]) + content[26:],
        lambda content: b"<html>404 Not Found</html>",
        lambda content: content + b"more",
    ],
    ids=["cut short", "cut to its head", "emptied", "one bit altered", "an error page", "lengthened"],
)
def test_a_damaged_packed_file_is_named(packed, name, damage):
    path = packed / f"{name}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput) as error:
        load_raw(packed)
    assert str(path) in str(error.value)


def test_a_damaged_packed_file_is_not_replaced_by_drawn_digits(packed):
    path = packed / f"{MNIST_FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match="checksum"):
        load_dataset("auto", packed.parents[1])


def test_a_truncated_file_of_real_mnist_is_named(mnist, tmp_path):
    source = common.run.ROOT / "data" / "MNIST" / "raw"
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and path.name.removesuffix(".gz") in MNIST_FILES:
            (folder / path.name).symlink_to(path)
    damaged = max(folder.glob("t10k-images*"), key=lambda path: path.suffix == ".gz")  # what is read, where both are
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput) as error:
        load_dataset("mnist", tmp_path)
    assert str(damaged) in str(error.value)


def test_a_file_with_the_right_checksum_that_is_no_gzip_is_named(packed, monkeypatch):
    path = packed / f"{MNIST_FILES[1]}.gz"
    path.write_bytes(b"no gzip")
    resources = dict(datasets.MNIST.resources) | {path.name: hashlib.md5(b"no gzip").hexdigest()}
    monkeypatch.setattr(datasets.MNIST, "resources", list(resources.items()))
    with pytest.raises(BadInput, match="unpacked") as error:
        load_raw(packed)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", MNIST_FILES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:6],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: bytes((0, 0, 8, 2)) + content[4:],
        lambda content: bytes((0, 0, 13)) + content[3:],
        lambda content: content[:4] + (10_000).to_bytes(4, "big") + content[8:],
        lambda content: content[:4] + bytes((255, 255, 255, 255)) + content[8:],
        lambda content: b"garbage " * 100,
    ],
    ids=[
        "cut short",
        "cut within its header",
        "emptied",
        "lengthened",
        "wrong number of dimensions",
        "wrong type",
        "wrong count",
        "absurd count",
        "garbage",
    ],
)
def test_a_damaged_unpacked_file_is_named(raw, name, damage):
    path = raw / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput) as error:
        load_raw(raw)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize(
    ("kind", "array"),
    [
        ("labels-idx1-ubyte", np.arange(7)),
        ("labels-idx1-ubyte", np.arange(0)),
        ("labels-idx1-ubyte", np.full(20, 10)),
        ("images-idx3-ubyte", np.zeros((20, 27, 28))),
        ("images-idx3-ubyte", np.zeros((0, 28, 28))),
    ],
    ids=["too few labels", "no labels", "a label of 10", "images of another size", "no images"],
)
def test_files_that_do_not_fit_together_name_their_folder_and_part(raw, part, kind, array):
    array = array[: 20 if part == "train" else 10]
    (raw / f"{part}-{kind}").write_bytes(idx_bytes(array))
    with pytest.raises(BadInput) as error:
        load_raw(raw)
    assert str(raw) in str(error.value)
    assert part in str(error.value)


@pytest.mark.parametrize("dataset", ["auto", "mnist"])
@pytest.mark.parametrize("name", MNIST_FILES)
def test_one_of_four_files_missing_is_named(raw, name, dataset):
    (raw / name).unlink()
    with pytest.raises(BadInput, match="missing") as error:
        load_dataset(dataset, raw.parents[1])
    assert str(raw / name) in str(error.value)


def test_a_folder_in_the_place_of_a_file_is_named(raw):
    path = raw / MNIST_FILES[2]
    path.unlink()
    path.mkdir()
    with pytest.raises(BadInput) as error:
        load_raw(raw)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("place", ["data", "data/MNIST", "data/MNIST/raw"])
def test_a_file_in_the_place_of_the_folder_is_named(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not a folder")
    with pytest.raises(BadInput) as error:
        load_dataset("mnist", tmp_path / "data")
    assert str(path) in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any folder")
@pytest.mark.parametrize("dataset", ["auto", "mnist"])
def test_a_folder_without_rights_is_named(raw, dataset):
    raw.chmod(0)
    try:
        with pytest.raises(BadInput) as error:
            load_dataset(dataset, raw.parents[1])
    finally:
        raw.chmod(0o700)
    assert str(raw) in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_file_without_rights_is_named(raw):
    path = raw / MNIST_FILES[0]
    path.chmod(0)
    with pytest.raises(BadInput) as error:
        load_raw(raw)
    assert str(path) in str(error.value)


# The network ----------------------------------------------------------------------------------------------------


@pytest.fixture
def few_drawn(monkeypatch):
    monkeypatch.setattr(common.data, "drawn", lambda *_, **__: drawn(train=20, test=10))


@pytest.fixture
def no_answer(monkeypatch):
    monkeypatch.setattr(common.data, "_any_answer", lambda mirrors: False)


@pytest.mark.usefixtures("few_drawn", "no_answer")
def test_auto_without_files_and_network_draws_digits_and_says_so_loudly(tmp_path, capsys):
    assert load_dataset("auto", tmp_path).name == "drawn"
    warning = capsys.readouterr().err
    assert "DRAWN" in warning
    assert "Nothing below is a result on MNIST" in warning
    assert str(tmp_path / "MNIST" / "raw") in warning
    assert "!" * 70 in warning
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_answer")
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_a_named_set_that_cannot_be_had_is_an_error_that_names_its_folder(tmp_path, name, folder):
    with pytest.raises(NotAvailable) as error:
        load_dataset(name, tmp_path)
    assert str(tmp_path / folder / "raw") in str(error.value)
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def silent_server():
    """A server that accepts every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def accept():
            with contextlib.suppress(OSError):  # closed at the end of the test
                while True:
                    held.append(server.accept())

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        for connection, _ in held:
            connection.close()


class Shelf(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; where `stalls` is set, it answers HEAD and never a GET."""

    stalls = False

    def do_GET(self):
        if self.stalls:
            self.server.released.wait(20)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def file_server(folder, stalls: bool = False):
    handler = type("Handler", (Shelf,), {"stalls": stalls})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(folder))) as server:
        server.released = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.released.set()
        server.shutdown()


@pytest.fixture
def mirrors(monkeypatch):
    """Set the servers that MNIST is fetched from, with a patience of one second and no proxy."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(common.data, "DOWNLOAD_PATIENCE", 1.0)
    return lambda *urls: monkeypatch.setattr(datasets.MNIST, "mirrors", list(urls))


def seconds_until_given_up(data_dir) -> float:
    start = time.perf_counter()
    with pytest.raises(NotAvailable):
        load_dataset("mnist", data_dir)
    return time.perf_counter() - start


def test_servers_that_never_answer_are_given_up_in_time(tmp_path, mirrors):
    with silent_server() as one, silent_server() as other:
        mirrors(one, other)
        assert seconds_until_given_up(tmp_path) < 3
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_stalls_after_its_first_answer_is_given_up_in_time(tmp_path, mirrors):
    with file_server(tmp_path, stalls=True) as url:
        mirrors(url, url)
        assert seconds_until_given_up(tmp_path / "data") < 5
    assert list((tmp_path / "data").rglob("*.gz")) == []


def test_servers_that_are_not_there_are_given_up_at_once(tmp_path, mirrors, monkeypatch):
    monkeypatch.setattr(common.data, "DOWNLOAD_PATIENCE", 30.0)
    mirrors("http://127.0.0.1:9/", "no address at all")
    assert seconds_until_given_up(tmp_path) < 15


@pytest.mark.usefixtures("few_drawn")
def test_auto_draws_digits_where_no_server_answers(tmp_path, mirrors, capsys):
    with silent_server() as url:
        mirrors(url)
        assert load_dataset("auto", tmp_path).name == "drawn"
    assert "DRAWN" in capsys.readouterr().err


def test_a_download_leaves_the_four_files_and_nothing_else(packed, tmp_path, mirrors):
    there = tmp_path / "there"
    packed.rename(there)
    with silent_server() as dead, file_server(there) as url:
        mirrors(url, dead)
        assert_is_small_set(load_raw(packed))
    assert sorted(path.name for path in packed.iterdir()) == sorted(path.name for path in there.iterdir())
    assert_is_small_set(load_raw(packed))


@pytest.mark.parametrize("name", [MNIST_FILES[0], MNIST_FILES[3]])
def test_a_download_of_a_damaged_file_leaves_nothing(packed, tmp_path, mirrors, name):
    there = tmp_path / "there"
    shutil.move(packed, there)
    (there / f"{name}.gz").write_bytes(b"<html>please log in</html>")
    with file_server(there) as url:
        mirrors(url)
        with pytest.raises(NotAvailable):
            load_raw(packed)
    assert list(packed.iterdir()) == []

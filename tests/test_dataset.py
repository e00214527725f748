"""Datasets by name, the order of training, and runs on sets other than MNIST."""

import json

import pytest
import torch

import autoencoder
import gan_mlp
import infogan
from common import BadInput, guide
from common.cli import parse
from common.data import check_dataset, drawn, epoch_order, load_dataset, to_float
from common.data.dataset import CLASSES, TITLES
from common.look import codes, figures, plots
from common.run import Run
from tests.test_image_folder import save_images
from tests.test_mnist import SETS, write_raw

SCRIPTS = {"infogan": infogan, "gan_mlp": gan_mlp, "autoencoder": autoencoder}


def test_to_float_maps_0_to_255_onto_0_to_1_and_leaves_its_input():
    images = torch.arange(256, dtype=torch.uint8).repeat(49)[: 16 * 784].view(16, 28, 28)
    x, before = to_float(images), images.clone()
    assert (x.shape, x.dtype, x.min(), x.max()) == ((16, 1, 28, 28), torch.float32, 0, 1)
    assert torch.equal((x * 255).round().byte().squeeze(1), images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ["imagenet", "", "no/such/folder", "~nobody at all/x"])
def test_a_name_that_is_neither_a_set_nor_a_folder_is_refused(name):
    with pytest.raises(BadInput, match="--dataset must be one of auto, mnist, fashion, kmnist, drawn or a folder"):
        check_dataset(name)


def test_drawn_has_the_size_of_mnist_and_smoke_is_a_few_drawn_digits_for_any_name(tmp_path, monkeypatch):
    monkeypatch.setattr("common.data.drawn", lambda **sizes: sizes)
    assert load_dataset("drawn", tmp_path) == {}
    assert drawn.__defaults__[:2] == (60_000, 10_000)
    assert load_dataset("mnist", tmp_path, smoke=True)["train"] < 1000
    assert list(tmp_path.iterdir()) == []


def test_the_order_visits_each_image_once_and_depends_on_seed_and_epoch_alone():
    first, state = epoch_order(1000, seed=3, epoch=5), torch.manual_seed(123).get_state()
    assert first.sort().values.tolist() == list(range(1000))
    assert torch.equal(epoch_order(1000, seed=3, epoch=5), first)
    assert torch.equal(torch.get_rng_state(), state)
    for seed, epoch in ((3, 6), (4, 5), (5, 3)):
        assert not torch.equal(epoch_order(1000, seed, epoch), first)
    assert epoch_order(1, seed=3, epoch=5).tolist() == [0]


@pytest.mark.parametrize("batch_size", [64, 50, 128])
def test_the_batches_of_a_run_visit_each_image_once_per_epoch(out, tiny, monkeypatch, batch_size):
    monkeypatch.setattr("common.run.load_dataset", lambda *_: tiny)
    orders = []
    with Run(autoencoder.Config(out=out, epochs=2, batch_size=batch_size, device="cpu", quiet=True)) as run:
        run.restore(weight=torch.zeros(1))
        for _ in run.remaining_epochs():
            batches = list(run.batches())
            assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
            orders.append(torch.cat(batches))
            run.end_epoch({}, {})
    assert [order.sort().values.tolist() for order in orders] == [list(range(128))] * 2
    assert not torch.equal(*orders)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, tiny):
    """A folder of 128 images without classes."""
    return save_images(tmp_path_factory.mktemp("pictures") / "my pictures", tiny.train_images)


@pytest.fixture
def train(tmp_path, out, monkeypatch):
    """Call a script's main, with a quick guide and few images per code. Returns the report, the columns, the folder."""
    monkeypatch.setattr(codes, "PER_CATEGORY", 20)
    monkeypatch.setattr(guide, "UPDATES", 5)

    def call(script: str, dataset: object):
        settings = {"dataset": str(dataset), "data_dir": tmp_path / "data", "out": out, "device": "cpu", "quiet": True}
        report = SCRIPTS[script].main(SCRIPTS[script].Config(epochs=1, batch_size=37, **settings))
        folder = out / script / "run-001"
        return report, (folder / "metrics.csv").read_text().splitlines()[0].split(","), folder

    return call


LABELLED = {"classes", "accuracy", "share_distance", "frechet", "normalised_mutual_information", "classifier_accuracy"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_without_labels_leaves_out_what_needs_them(train, pictures, tmp_path, script):
    report, columns, folder = train(script, pictures)
    assert report["dataset"] == "my pictures"
    assert not LABELLED & {*report, *columns}
    assert not {"confusion.png", "digits.png"} & {path.name for path in folder.iterdir()}
    assert not (tmp_path / "data").exists(), "a classifier was trained"
    assert json.loads((folder / "config.json").read_text())["dataset"] == str(pictures)
    model = SCRIPTS[script].load(folder)
    if script == "infogan":
        assert model.digit_of_category.tolist() == list(range(10))


RUNS = [("infogan", "folder"), ("gan_mlp", "folder"), ("gan_mlp", "kmnist"), ("autoencoder", "fashion")]


@pytest.mark.parametrize(("script", "name"), RUNS)
def test_a_run_names_its_set_and_classes_and_is_measured_against_them(train, tmp_path, tiny, monkeypatch, script, name):
    if name == "folder":
        title, classes = "folder mine", ("other", "round", "slim")
        dataset = save_images(tmp_path / "mine", tiny.train_images, classes)
    else:
        dataset, title, classes = name, TITLES[name], CLASSES[name]
        arrays = (tiny.train_images, tiny.train_labels, tiny.test_images, tiny.test_labels)
        write_raw(tmp_path / "data" / SETS[name].__name__ / "raw", [array.numpy() for array in arrays])
    seen = []
    for room, function in ((figures, "save_grid"), (plots, "save_confusion")):
        draw = getattr(room, function)
        monkeypatch.setattr(room, function, lambda *a, f=draw, **k: seen.append(str((a, k))) or f(*a, **k))
    report, columns, folder = train(script, dataset)
    assert report["dataset"] == ("mine" if name == "folder" else name)
    assert all(title in text for text in seen)
    if script != "autoencoder":
        assert report["classes"] == ", ".join(classes)
        assert report["classifier_accuracy"] > 0
        assert (folder / ("confusion.png" if script == "infogan" else "digits.png")).exists()
    if script == "infogan":
        assert all(word in text for text in seen for word in classes)
    if script == "gan_mlp":
        assert [name for name in columns if name.startswith("digit_")] == [f"digit_{i}" for i in range(len(classes))]


def test_a_run_on_a_folder_goes_on_from_another_place_if_the_folder_is_given_again(train, pictures, monkeypatch):
    """A run folder may come from a stranger, so the path that it names is not followed."""
    monkeypatch.chdir(pictures.parent)
    *_, folder = train("autoencoder", pictures.name)
    monkeypatch.chdir(pictures)
    flags, again = ["--resume", str(folder), "--epochs", "2"], ["--dataset", str(pictures)]
    with pytest.raises(BadInput, match=f"add --dataset '{pictures}'"):
        parse(autoencoder.Config, flags)
    config = parse(autoencoder.Config, flags + again)
    with monkeypatch.context() as patch:
        patch.setattr(figures, "draw_reals", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError) as failed:
            autoencoder.main(config)
    assert f"--dataset '{pictures}'" in failed.value.__notes__[0]
    assert autoencoder.main(config)["epochs"] == 2

"""What holds for every script: a smoke run, three updates against stored numbers, an update on the meta device."""

import importlib
import json
import math
import re
import shutil
import statistics

import pytest
import torch
from PIL import Image

import infogan
import studies.pictures
from common import BadInput
from common.run.files import read_rows
from common.run.run import TIME_COLUMNS
from common.train import guide
from common.train.random import stream_seed
from tests.conftest import Finished
from tests.helpers import FLOAT32, OnMeta, make_quick, pictures, rows_without_time, run_script, tensors

MODELS = {"autoencoder": "Autoencoder", "gan_mlp": "GAN", "infogan": "InfoGAN"}
FIGURES = {
    "autoencoder": "extremes.png hidden_units.png range.png",
    "gan_mlp": "digits.png interpolation.png neighbours.png",
    "infogan": "codes.png codes.gif confusion.png explore.html",
}
SHARES = [f"share_{digit}" for digit in range(10)]
LOSSES = ["loss_d", "loss_g", "d_real", "d_fake"]
COLUMNS = {
    "autoencoder": ["loss", "train_mse", "test_mse", "pca_test_mse", "ratio", "dead_units"],
    "gan_mlp": [*LOSSES, *SHARES, "class_total_variation", "frechet", "frechet_over_floor"],
    "infogan": [*LOSSES, *(f"{of}_{code}_nats" for of in ("info", "guide") for code in ("c1", "c2", "c3")), "accuracy"],
}
STORED = {  # means over the rows of metrics.csv of three updates, without what is a share of so few images
    "autoencoder": {"loss": 0.069816, "train_mse": 0.069951, "test_mse": 0.070514, "pca_test_mse": 0.008533}
    | {"ratio": 8.26373, "dead_units": 0},
    "gan_mlp": {"loss_d": 1.31750, "loss_g": 0.613118, "d_real": 0.653824, "d_fake": 0.572846}
    | {"frechet": 0.013623, "frechet_over_floor": 6.77902},
    "infogan": {"loss_d": 1.53093, "loss_g": 0.809899, "d_real": 0.521499, "d_fake": 0.510233}
    | {"info_c1_nats": 0.0008, "info_c2_nats": -0.1887, "info_c3_nats": -0.2265}
    | {"guide_c1_nats": -0.0149, "guide_c2_nats": -0.0408, "guide_c3_nats": -0.3560},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_rows_of_three_updates_are_the_stored_ones(monkeypatch, tiny, out, name):
    script = importlib.import_module(name)
    make_quick(monkeypatch, tiny)
    for picture in ("save_reals", "save_epoch"):
        monkeypatch.setattr(script, picture, lambda *_: None)
    monkeypatch.setattr(script, "report", lambda run, *_: run.rows)
    labels = torch.arange(128) % 10, torch.linspace(-1, 1, 256).view(2, 128).T, torch.ones(()), torch.zeros(64)
    monkeypatch.setattr(guide, "fit_pseudo_labels", lambda *_: labels)
    fields = {"dataset": "drawn", "epochs": 1, "batch_size": 43, "device": "cpu", "precision": "float32"}
    rows = script.main(script.Config(**fields, out=out, data_dir=out / "data"))
    for column, value in STORED[name].items():
        assert statistics.mean(row[column] for row in rows if column in row) == pytest.approx(
            value, rel=1e-2, abs=5e-3 if column.endswith("nats") else 0
        ), column


@pytest.mark.parametrize("name", MODELS)
def test_an_update_waits_for_no_value_and_leaves_nothing_on_the_cpu(monkeypatch, name):
    script = importlib.import_module(name)
    with torch.device("meta"):
        model, real = getattr(script, MODELS[name])(script.Config()), torch.rand(8, 1, 28, 28)
        c1, continuous = torch.zeros(8).long(), torch.rand(8, 2)
        latents = {"gan_mlp": torch.randn(8, 100), "infogan": infogan.Latent(torch.randn(8, 62), c1, continuous)}
    monkeypatch.setattr(model, "sample_latent", lambda *_: latents[name], raising=False)
    networks = [model] if name == "autoencoder" else [model.discriminator, model.generator]
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in networks]  # Adam counts on the CPU
    given = {
        "autoencoder": (*optimizers, real.flatten(1), FLOAT32),
        "gan_mlp": (optimizers, real, None, FLOAT32, 0.9),
        "infogan": (optimizers, real, (c1, continuous), None, FLOAT32, 0.9, True),
    }
    with OnMeta():
        script.update(model, *given[name])


@pytest.fixture(scope="module", params=MODELS)
def smoke(request, tmp_path_factory) -> tuple:
    name, script = request.param, importlib.import_module(request.param)
    if name == "infogan":
        return name, script, request.getfixturevalue("smoke_run")
    base = tmp_path_factory.mktemp(name)
    (cwd := base / "elsewhere").mkdir()
    process = run_script(f"{name}.py", "--smoke", "--out", base / "outputs", "--data-dir", base / "data", cwd=cwd)
    assert process.returncode == 0, process.stderr
    return name, script, Finished(process, base / "outputs" / name / "run-001", cwd)


def test_every_file_is_written_and_nothing_elsewhere_and_all_numbers_are_finite_and_agree(smoke):
    name, _, run = smoke
    grids = {f"epoch_00{n}{of}.png" for n in range(3) for of in (("_c1", "_c2", "_c3") if name == "infogan" else ("",))}
    files = {"checkpoint.pt", "config.json", "metrics.csv", "report.json", "reals.png", "training.gif", "curves.png"}
    found = {path.name for path in run.folder.iterdir()}
    assert found == files | grids | {*FIGURES[name].split()}
    assert {path.name for path in (*run.cwd.parent.iterdir(), *run.cwd.iterdir())} <= {"elsewhere", "outputs", "data"}
    for path in (*run.folder.glob("*.png"), run.folder / "training.gif"):
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 150, path.name
            assert getattr(picture, "n_frames", 1) == (3 if path.suffix == ".gif" else 1)
    said = run.process.stdout
    assert (len(re.findall(r"^  \d/2 ", said, re.M)), "WARNING" in said, run.process.stderr) == (2, False, "")
    assert max(map(len, said.splitlines()[3:-3])) <= 80  # except paths
    assert max(map(len, re.findall(r"^(?:epoch|  \d/2) .*", said, re.M))) <= 80
    report, rows = json.loads((run.folder / "report.json").read_text()), read_rows(run.folder / "metrics.csv")
    whole = [row for row in rows if row["epoch"] in (1, 2)]
    assert [list(row) for row in whole] == [["epoch", *TIME_COLUMNS, *COLUMNS[name]]] * 2
    assert [row["epoch"] for row in rows] == [update / 8 for update in range(17)]
    assert (report["dataset"], report["epochs"], report["warning"]) == ("drawn", 2, None)
    for numbers in (*rows, report):
        assert all(math.isfinite(value) for value in numbers.values() if isinstance(value, float))
        assert all(0 <= numbers[name] <= 1 for name in ("d_real", "d_fake", "accuracy", *SHARES) if name in numbers)
        assert numbers["seconds"] > 0
    shown = report.keys() & {*COLUMNS[name]}
    assert {name: report[name] for name in shown} == pytest.approx({name: rows[-1][name] for name in shown})


def test_every_parameter_and_statistic_has_changed(smoke):
    name, script, run = smoke
    torch.manual_seed(stream_seed(0, "weights"))
    model = getattr(script, MODELS[name])(script.Config())
    content = torch.load(run.folder / "checkpoint.pt", weights_only=True)
    same = {name for name, first in tensors(model).items() if torch.equal(content[f"model.{name}"], first)}
    # What BatchNorm counts is not averaged.
    assert all(name.startswith("ema.") and name.endswith("num_batches_tracked") for name in same), same


def test_the_seed_alone_decides_the_bytes_in_whatever_process_and_folder(smoke, out):
    name, script, run = smoke
    data_dir, expected = run.cwd.parent / "data", pictures(run.folder)
    report = script.main(script.Config.make(smoke=True, out=out, data_dir=data_dir))
    again, other = (out / name / f"run-00{number}" for number in (1, 2))
    assert (again / "checkpoint.pt").read_bytes() == (run.folder / "checkpoint.pt").read_bytes()
    assert rows_without_time(again) == rows_without_time(run.folder)
    assert pictures(again) == expected
    before = json.loads((run.folder / "report.json").read_text())
    assert report | {"seconds": 0} == before | {"seconds": 0, "folder": str(again)}
    script.main(script.Config.make(smoke=True, seed=1, epochs=1, out=out, data_dir=data_dir))
    assert {name for name, content in pictures(other).items() if content == expected[name]} == {"reals.png"}


def test_the_pages_get_pictures_made_again_and_none_of_an_unfinished_run(smoke, tmp_path, monkeypatch):
    name, _, run = smoke
    monkeypatch.setattr(studies.pictures, "BROWSERS", ())
    run, docs = shutil.copytree(run.folder, tmp_path / "run"), tmp_path / "docs"
    pages = {target: run / source.format(last=2) for source, target in studies.pictures.COPIED[name].items()}
    expected = {target: path.read_bytes() for target, path in pages.items()}
    next(iter(pages.values())).unlink()
    studies.pictures.main([str(run), "--out", str(docs)])
    only = {
        "infogan": {f"infogan_{name}.png" for name in ("progress", "networks", "neighbours", "mistakes")},
        "gan_mlp": {"gan_digits.png"},
    }
    assert {path.name for path in docs.iterdir()} == {*expected} | only.get(name, set())
    expected.pop("explore.html", None)  # has the path of its run
    assert {target: (docs / target).read_bytes() for target in expected} == expected
    (run / "report.json").unlink()
    with pytest.raises(BadInput, match="run: is not finished"):
        studies.pictures.main([str(run), "--out", str(tmp_path / "none")])

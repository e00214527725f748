"""`--compare`: what is shown of several runs, what is refused."""

import csv
import json
import re
import shutil

import pytest
from PIL import Image

import autoencoder
import gan_mlp
from common import BadInput
from common.compare import compare
from common.data import drawn
from common.run import Stopped
from tests.helpers import run_script


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three autoencoders: 5 and 9 units, and one of 5 that was stopped in its second epoch."""
    out = tmp_path_factory.mktemp("runs")
    data = drawn(train=128, test=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "load_dataset", lambda *_: data)
        for hidden in (5, 9, 5):
            config = autoencoder.Config(dataset="drawn", epochs=2, batch_size=64, hidden=hidden, device="cpu", out=out)
            if hidden == 5 and (out / "autoencoder").exists():
                patch.setattr(autoencoder, "measure", stopping_in_the_second_epoch(autoencoder.measure))
                with pytest.raises(Stopped):
                    autoencoder.main(config)
            else:
                autoencoder.main(config)
    yield sorted((out / "autoencoder").iterdir())
    shutil.rmtree(out)


def stopping_in_the_second_epoch(measure):
    seen = []

    def call(*arguments: object, **named: object):
        seen.append(1)
        if len(seen) == 2:
            raise Stopped("stopped")
        return measure(*arguments, **named)

    return call


def table_of(folder) -> dict[str, list[str]]:
    with (folder / "compare.csv").open(newline="") as file:
        return {name: values for name, *values in csv.reader(file)}


def test_the_table_has_what_differs_and_what_was_reached(runs, tmp_path, capsys):
    reached = compare(runs, autoencoder.Config, tmp_path)
    table = table_of(tmp_path / "compare-001")
    assert table[""] == ["run-001", "run-002", "run-003"]
    assert table["hidden"] == ["5", "9", "5"]
    assert not {"seed", "out", "batch_size", "quiet"} & set(table)
    reports = [json.loads((run / "report.json").read_text()) for run in runs[:2]]
    assert [float(value) for value in table["ratio"][:2]] == [report["ratio"] for report in reports]
    assert reached["run-002"]["ratio"] == reports[1]["ratio"]
    shown = capsys.readouterr().out
    assert re.search(r"^hidden +5 +9 +5$", shown, re.M)
    assert re.search(rf"^ratio +{reports[0]['ratio']:.4g} ", shown, re.M)
    assert shown.rstrip().endswith(str(tmp_path / "compare-001"))


def test_an_unfinished_run_is_shown_with_what_it_has(runs, tmp_path):
    assert not (runs[2] / "report.json").exists()
    reached = compare(runs, autoencoder.Config, tmp_path)
    assert reached["run-003"]["epoch"] == 1
    table = table_of(tmp_path / "compare-001")
    assert table["ratio"][2] != ""
    assert table["seconds"][2] == "", "the time of an epoch is not that of the run"


def test_the_picture_shows_every_run_and_is_the_same_again(runs, tmp_path):
    for chosen in (runs, runs, runs[:2]):
        compare(chosen, autoencoder.Config, tmp_path)
    three, again, two = (tmp_path / f"compare-00{i}" / "compare.png" for i in (1, 2, 3))
    assert three.read_bytes() == again.read_bytes()
    with Image.open(runs[0] / "epoch_002.png") as grid, Image.open(three) as page, Image.open(two) as smaller:
        assert page.width > smaller.width >= 2 * grid.width
        assert grid.convert("RGB").tobytes() in (
            page.crop((0, y, grid.width, y + grid.height)).tobytes() for y in range(page.height - grid.height + 1)
        )


def test_runs_of_the_same_number_are_told_apart_by_their_folders(runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "other" / "run-001")
    shutil.copytree(runs[1], tmp_path / "one" / "run-001")
    named = compare([tmp_path / "other" / "run-001", tmp_path / "one" / "run-001"], autoencoder.Config, tmp_path)
    assert list(named) == ["other/run-001", "one/run-001"]


def test_runs_that_trained_not_an_epoch_are_shown(runs, tmp_path):
    for i in (0, 1):
        bare = tmp_path / f"run-00{i}"
        bare.mkdir()
        for name in ("config.json", "epoch_000.png"):
            shutil.copy(runs[i] / name, bare)
    assert compare(sorted(tmp_path.iterdir()), autoencoder.Config, tmp_path) == {"run-000": {}, "run-001": {}}


def damaged(run, tmp_path, name: str):
    copy = tmp_path / "damaged"
    shutil.copytree(run, copy)
    (copy / name).write_text("epoch\n{")
    return copy


def test_what_is_no_run_of_the_script_is_refused_by_name_and_nothing_is_written(runs, tmp_path):
    out = tmp_path / "out"
    cases = [
        ([runs[0]], autoencoder.Config, "--compare needs"),
        ([runs[0], runs[0]], autoencoder.Config, "--compare needs"),
        ([runs[0], tmp_path], autoencoder.Config, str(tmp_path)),
        ([runs[0], tmp_path / "none"], autoencoder.Config, "none"),
        (runs, gan_mlp.Config, "of autoencoder, not of gan_mlp"),
    ]
    for folders, config_class, said in cases:
        with pytest.raises(BadInput, match=re.escape(said)):
            compare(folders, config_class, out)
    assert not out.exists()


@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "report.json", "epoch_002.png"])
def test_a_damaged_file_is_named_and_nothing_is_written(runs, tmp_path, name):
    with pytest.raises(BadInput, match=re.escape(name)):
        compare([runs[0], damaged(runs[1], tmp_path, name)], autoencoder.Config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_script_compares_from_the_shell_and_trains_nothing(runs, tmp_path):
    process = run_script("autoencoder.py", "--out", tmp_path, "--compare", *runs, cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    written = {path.name for path in (tmp_path / "autoencoder" / "compare-001").iterdir()}
    assert written == {"compare.png", "compare.csv"}
    refused = run_script("gan_mlp.py", "--out", tmp_path, "--compare", *runs, cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "gan_mlp").exists()

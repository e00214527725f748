"""benchmarks/seeds.py: which seeds are run, how often, and that the table says what the reports say."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

import infogan
from autoencoder import Config
from benchmarks.seeds import finished, main, seeds_of, study_name, summarise
from common import BadInput
from common.run import ROOT, parse, write_json


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("0-3", [0, 1, 2, 3]), ("7,0-2,1", [7, 0, 1, 2]), ("100-101", [100, 101])]
)
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1.5", "0-99999", "1,,2"])
def test_anything_else_is_bad_input(text):
    with pytest.raises(BadInput, match="--seeds"):
        seeds_of(text)


def test_a_study_is_named_after_the_fields_that_differ():
    assert study_name(Config()) == "default"
    assert study_name(Config(seed=5, device="cpu")) == "default"
    assert study_name(Config(epochs=3, hidden=32)) == study_name(Config(hidden=32, epochs=3))
    assert study_name(Config(epochs=3, hidden=32)) != study_name(Config(epochs=3, hidden=33))


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("", "default"),
        ("--info-weight 0", "info_weight=0.0"),
        ("--paper", "paper"),
        ("--paper --epochs 12 --seed 4", "paper"),
        ("--paper --epochs 2", "paper,epochs=2"),
        ("--paper --info-weight 0", "paper,info_weight=0.0"),
        ("--paper --epochs 3 --average 0.999", "paper,epochs=3,average=0.999"),  # the defaults without --paper
    ],
)
def test_a_study_of_the_paper_is_named_after_the_fields_that_differ_from_the_preset(flags, name):
    assert study_name(parse(infogan.Config, flags.split())) == name


def test_no_run_of_another_study_is_taken_for_a_finished_one(tmp_path):
    run = tmp_path / "seed-000" / "autoencoder" / "run-001"
    run.mkdir(parents=True)
    write_json(run / "report.json", {"epochs": 3})

    def found(stored, asked):
        write_json(run / "config.json", {"script": "autoencoder", **vars(stored)})
        return finished(tmp_path / "seed-000", asked)

    assert found(Config(epochs=3, seed=5, dataset="mnist"), Config(epochs=3)) == run
    assert found(Config(epochs=3, dataset="mnist"), Config(epochs=4, dataset="mnist")) is None
    with pytest.raises(BadInput, match="dataset drawn, not mnist"):
        found(Config(epochs=3, dataset="drawn"), Config(epochs=3, dataset="mnist"))
    (tmp_path / "a").mkdir()
    for folder in (tmp_path / "a_b", tmp_path / "a" / "b"):  # `study_name` has the same name for both
        folder.mkdir()
        assert found(Config(epochs=3, dataset=str(folder)), Config(epochs=3, dataset=str(folder))) == run
    with pytest.raises(BadInput, match="was run with dataset"):
        found(Config(epochs=3, dataset=str(tmp_path / "a_b")), Config(epochs=3, dataset=str(tmp_path / "a" / "b")))


def test_runs_on_several_datasets_make_no_table(tmp_path):
    """Where MNIST can't be had, a run takes drawn digits."""
    for seed, dataset in enumerate(("mnist", "drawn")):
        run = tmp_path / "autoencoder" / "default" / f"seed-{seed:03d}" / "autoencoder" / "run-001"
        run.mkdir(parents=True)
        write_json(run / "config.json", {"script": "autoencoder", **vars(Config(dataset=dataset))})
        write_json(run / "report.json", {"dataset": dataset, "epochs": Config().epochs, "seconds": 60})
    flags = ["autoencoder.py", "--out", str(tmp_path), "--summarise"]
    with pytest.raises(BadInput, match="drawn, mnist"):
        main([*flags, "--seeds", "0-1"])
    assert not list(tmp_path.rglob("summary.csv"))
    assert main([*flags, "--seeds", "0"]) == 0


def test_the_table_has_minimum_median_and_maximum_of_every_number(tmp_path, capsys):
    reports = {
        3: {"dataset": "mnist", "accuracy": 0.5, "dead": 1, "what": "slant"},
        4: {"dataset": "mnist", "accuracy": 0.9, "dead": 0, "what": "slant"},
        9: {"dataset": "mnist", "accuracy": 0.6, "dead": 4, "what": "slant"},
    }
    summarise(reports, "python benchmarks/seeds.py x.py", tmp_path / "summary.csv")
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"accuracy", "dead"}
    found = [float(rows["accuracy"][name]) for name in ("minimum", "median", "maximum", "seed 3", "seed 4", "seed 9")]
    assert found == [0.5, 0.6, 0.9, 0.5, 0.9, 0.6]
    assert rows["dead"]["command"] == "python benchmarks/seeds.py x.py"
    assert "3 seeds" in capsys.readouterr().out


@pytest.fixture
def study(out):
    yield ["autoencoder.py", "--smoke", "--out", str(out), "--data-dir", str(out.parent / "data")], out
    shutil.rmtree(out, ignore_errors=True)


@pytest.mark.slow
def test_every_seed_is_run_once_and_a_stopped_one_goes_on(study, capsys):
    flags, out = study
    assert main([*flags, "--seeds", "0-1", "--at-once", "2"]) == 0
    reports = {path.parts[-4]: path for path in out.rglob("report.json")}
    assert reports.keys() == {"seed-000", "seed-001"}
    written = {name: path.stat().st_mtime_ns for name, path in reports.items()}
    first = next(out.rglob("summary.csv")).read_bytes()

    assert main([*flags, "--seeds", "0-1"]) == 0
    assert {name: path.stat().st_mtime_ns for name, path in reports.items()} == written
    assert next(out.rglob("summary.csv")).read_bytes() == first

    content = reports["seed-001"].read_bytes()
    reports["seed-001"].unlink()  # as if it had been stopped before its end
    assert main([*flags, "--seeds", "0-1", "--summarise"]) == 1
    assert not reports["seed-001"].exists()
    assert "without a result: seed 1" in capsys.readouterr().err
    assert main([*flags, "--seeds", "0-1"]) == 0
    assert len(list(out.rglob("run-*"))) == 2
    again, before = (json.loads(text) for text in (reports["seed-001"].read_bytes(), content))
    assert {**again, "seconds": 0} == {**before, "seconds": 0}


@pytest.mark.slow
def test_a_run_that_fails_is_said_and_leaves_the_others(study, capsys):
    flags, out = study
    folder = out / "autoencoder" / study_name(parse(Config, ["--smoke"])) / "seed-000"
    folder.mkdir(parents=True)
    (folder / "autoencoder").write_text("in the way")
    assert main([*flags, "--seeds", "0-1"]) == 1
    said = capsys.readouterr()
    assert "seed 0: exit 2, autoencoder.py: --out" in said.out
    assert "without a result: seed 0" in said.err
    assert "1 seeds" in said.out


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_passed_on_and_the_run_goes_on_later(study, signum):
    flags, out = study
    command = [sys.executable, str(ROOT / "benchmarks" / "seeds.py"), *flags, "--epochs", "3000", "--seeds", "0-1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(out.rglob("checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in next(out.rglob("log.txt")).read_text()
    assert not list(out.rglob("seed-001"))  # nothing new is begun


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["vae.py"], "vae.py"),
        (["autoencoder.py", "--seed", "3"], "--seed"),
        (["autoencoder.py", "--resume=x"], "--resume"),
        (["autoencoder.py", "--seeds", "x"], "--seeds"),
        (["autoencoder.py", "--at-once", "0"], "--at-once"),
        (["autoencoder.py", "--hiden", "3"], "--hiden"),
    ],
)
def test_bad_input_is_named_and_nothing_is_run(flags, named, out):
    with pytest.raises(BadInput, match=named):
        main([*flags, "--out", str(out)])
    assert not out.exists()

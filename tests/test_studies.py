"""The programs of studies/: what they run, skip, write and refuse; and that throughput.py compares equal work."""

import csv
import json
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import autoencoder
import gan_mlp
import infogan
from common import BadInput, RunFailed
from common.data import load_dataset
from common.run.cli import parse
from common.run.config import ACTIONS, ROOT, Settings
from common.run.files import read_rows, write_json
from common.train.random import stream_seed
from studies import accuracy_over_time, compare, figure_1, letters, seeds, throughput, widths
from tests.helpers import make_quick

CLASSES = {module.Config.SCRIPT: module.Config for module in (autoencoder, gan_mlp, infogan)}


def table(path: Path) -> dict[str, list[str]]:
    """A CSV file by its first column."""
    with path.open(newline="", encoding="utf-8") as file:
        return {name: rest for name, *rest in csv.reader(file)}


def stored(run: Path, config: Settings, **report: object) -> Path:
    """A run folder with this config and report."""
    run.mkdir(parents=True)
    fields = {name: value for name, value in vars(config).items() if name not in ACTIONS}
    write_json(run / "config.json", {"script": config.SCRIPT, **fields})
    write_json(run / "report.json", report)
    return run


BAD = {
    "accuracy_over_time": ["x --outt"],
    "compare": ["one-run"],
    "figure_1": ["--seeds=x"],
    "pictures": ["no-run", str(ROOT / "docs")],
    "seeds": ["vae.py", *(f"autoencoder.py {flag}" for flag in ("--seed=3", "--at-once=0", "--hiden=3"))],
    "throughput": ["--rounds=0", "--scripts=vae"],
    "widths": ["--hidden=3", "--device=quantum", "--smoke --batch-size=1000"],
}


@pytest.mark.parametrize(("name", "flags"), [(name, flags) for name, all in BAD.items() for flags in all])
def test_bad_input_is_one_line_and_nothing_is_written(monkeypatch, capsys, tmp_path, name, flags):
    out = [] if name == "throughput" else ["--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *flags.split(), *out])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "studies" / f"{name}.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert (end.value.code, error.count("\n"), list(tmp_path.iterdir())) == (2, 1, [])
    assert error.startswith(f"{name}.py: ")
    assert flags.split()[-1].partition("=")[0] in error or "two run folders" in error


def test_seeds_are_numbers_and_ranges_and_nothing_else():
    found = {"3": [3], "7,0-2,1": [7, 0, 1, 2], "100-101": [100, 101]}
    assert {text: seeds.seeds_of(text) for text in found} == found
    for text in ("", "a", "3-1", "-1", "1,,2"):
        with pytest.raises(BadInput, match="--seeds"):
            seeds.seeds_of(text)


def test_a_study_is_named_after_its_presets_and_the_fields_that_differ():
    for call, name in {
        "infogan --seed 5 --device cpu --quiet --out x --data-dir y": "default",
        "infogan --paper --epochs 3 --average 0.1": "paper,epochs=3,average=0.1",  # the default without --paper
        "gan_mlp --smoke --widths-g 32 64 --dataset a/b": "smoke,widths_g=32-64,dataset=a_b",
    }.items():
        script, *flags = call.split()
        assert set(seeds.study_name(parse(CLASSES[script], flags)).split(",")) == set(name.split(","))


PAIRS = [
    ({"seed": 5, "dataset": "mnist"}, {"dataset": "auto"}, True),
    ({"device": "cpu", "precision": "bfloat16", "out": "/a/b", "data_dir": "/c"}, {}, True),  # as a run stores them
    ({"smoke": True}, {"smoke": True, "dataset": "mnist"}, True),  # which is on rendered digits all the same
    ({}, {"epochs": 4}, False),
    ({}, {"dataset": "mnist"}, "dataset drawn, not mnist"),
    ({"dataset": str(Path("a_b").resolve())}, {"dataset": "a_b"}, True),  # a run stores the whole path
    (
        {"dataset": str(Path("a_b").resolve())},
        {"dataset": "a/b"},
        "was run with dataset",
    ),  # both studies are called a_b
]


@pytest.mark.parametrize(("before", "asked", "found"), PAIRS)
def test_no_run_of_another_study_is_taken_for_a_finished_one(tmp_path, before, asked, found):
    before, asked = (autoencoder.Config(**{"dataset": "drawn", "epochs": 3} | fields) for fields in (before, asked))
    run = stored(tmp_path / "seed-000" / "autoencoder" / "run-001", before, epochs=3)
    with pytest.raises(BadInput, match=found) if isinstance(found, str) else nullcontext():
        assert seeds.finished(tmp_path / "seed-000", asked) == (run if found else None)


def test_the_table_has_minimum_median_and_maximum_and_runs_on_several_datasets_make_none(tmp_path, capsys):
    """Without MNIST, a run is on rendered digits."""
    for seed, ratio, dataset in ((3, 0.5, "mnist"), (4, 0.9, "mnist"), (9, 0.6, "mnist"), (10, 0.6, "drawn")):
        run = tmp_path / "autoencoder" / "default" / f"seed-{seed:03d}" / "autoencoder" / "run-001"
        stored(run, autoencoder.Config(dataset=dataset), dataset=dataset, epochs=30, ratio=ratio, warning=None)
    call = ["autoencoder.py", "--out", str(tmp_path), "--summarise", "--seeds"]
    with pytest.raises(BadInput, match="drawn, mnist"):
        seeds.main([*call, "3-4,9-10"])
    seeds.main([*call, "3,4,9"])
    assert re.search(r"minimum +median +maximum\n(.*\n)*ratio +0.5 +0.6 +0.9\n3 seeds", capsys.readouterr().out)
    rows = table(next(tmp_path.rglob("summary.csv")))
    assert rows["figure"] == ["minimum", "median", "maximum", "seed 3", "seed 4", "seed 9", "command"]
    command = "python studies/seeds.py autoencoder.py --seeds 3,4,9"
    assert rows["ratio"] == ["0.5", "0.6", "0.9", "0.5", "0.9", "0.6", command]
    kept = shutil.copyfile(next(tmp_path.rglob("summary.csv")), tmp_path / "kept.csv")  # on another machine
    shutil.rmtree(tmp_path / "autoencoder" / "default" / "seed-003")
    seeds.main([*call, "3-4", "--table", str(kept)])
    assert table(kept) == rows
    assert rows.keys() == {"figure", "epochs", "ratio"}


@pytest.mark.slow
def test_a_stopped_seed_goes_on_a_finished_one_is_not_run_again_and_one_that_fails_leaves_the_others(out, capsys):
    flags = ["autoencoder.py", "--smoke", "--epochs", "6", "--out", str(out), "--seeds"]
    command = [sys.executable, str(ROOT / "studies" / "seeds.py"), *flags, "0-1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(out.rglob("config.json")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("seeds.py: stopped\n", 130)
    assert "--resume" in next(out.rglob("log.txt")).read_text()
    [study] = (out / "autoencoder").iterdir()
    assert [path.name for path in study.iterdir()] == ["seed-000"], "nothing new is begun"

    (study / "seed-002").mkdir()
    (study / "seed-002" / "autoencoder").write_text("in the way")
    with pytest.raises(RunFailed, match="without a result: seed 2"):
        seeds.main([*flags, "0-2", "--at-once", "2"])
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("seed 0: goes on", "seed 2: exit 2, autoencoder.py: --out", "\n2 seeds"))
    reports = {path: path.stat().st_mtime_ns for path in out.rglob("report.json")}
    assert [path.parts[-4] for path in sorted(reports)] == ["seed-000", "seed-001"]
    seeds.main([*flags, "0-1"])
    assert {path: path.stat().st_mtime_ns for path in out.rglob("report.json")} == reports


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny):
    """Autoencoders of 5 and 9 units, and what the first one would have left if stopped in its second epoch."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, tiny)
        for hidden in (5, 9):
            autoencoder.main(autoencoder.Config(dataset="drawn", epochs=2, hidden=hidden, device="cpu", out=out))
    first, second = sorted((out / "autoencoder").iterdir())
    stopped = shutil.copytree(first, out / "elsewhere" / "run-003")
    (stopped / "report.json").unlink()
    head, _ = (first / "metrics.csv").read_text().split("\n2,")
    (stopped / "metrics.csv").write_text(f"{head}\n")  # up to a row within the second epoch
    return [first, second, stopped]


def test_the_table_has_what_differs_and_what_was_reached_even_by_an_unfinished_run(runs, tmp_path, capsys):
    compare.main(command := [*map(str, runs), "--out", str(tmp_path)])
    rows = table(tmp_path / "autoencoder" / "compare-001" / "compare.csv")
    names = ["autoencoder/run-001", "autoencoder/run-002", "elsewhere/run-003"]
    assert (rows[""], rows["hidden"]) == (names, ["5", "9", "5"])
    assert not {"seed", "out", "data_dir", "batch_size", "quiet"} & set(rows)
    ratios = [json.loads((run / "report.json").read_text())["ratio"] for run in runs[:2]]
    ratios.append(next(row["ratio"] for row in read_rows(runs[2] / "metrics.csv") if "ratio" in row))
    assert list(map(float, rows["ratio"])) == ratios
    assert (rows["epoch"], rows["seconds"][2]) == (["2", "2", "1"], ""), "the time of an epoch is not that of the run"
    cells = " +".join(re.escape(f"{ratio:.4g}{' *' * (ratio == min(ratios))}") for ratio in ratios)
    assert re.search(rf"^hidden +5 +9 +5\n\nratio +{cells}$", capsys.readouterr().out, re.M)
    compare.main(command)
    page, again = (tmp_path / "autoencoder" / f"compare-00{i}" / "compare.png" for i in (1, 2))
    assert page.read_bytes() == again.read_bytes()
    with Image.open(runs[0] / "epoch_002.png") as grid, Image.open(page) as picture:
        assert picture.width >= 3 * grid.width


def test_a_star_is_at_the_best_of_what_all_runs_have_and_more_or_less_of_it_is_better():
    for name, values, starred in [
        ("info_c1_nats", (2.1, 2.2), 1),
        ("frechet", (3.5, 4.0), 0),
        ("frechet", (3.5, ""), None),
        ("frechet_floor", (1.4, 1.5), None),
        ("info_c1_maximum_nats", (2.3, 3.0), None),
    ]:
        _, *cells = compare.cells({"": name, **dict(enumerate(values))})
        assert [cell.endswith(" *") for cell in cells] == [number == starred for number in range(2)], name


@pytest.mark.parametrize(("second", "error"), [("gan", "is a run of gan_mlp, not of"), ("report.json", "report.json")])
def test_what_is_no_run_of_the_script_is_refused_by_name_and_nothing_is_written(runs, tmp_path, second, error):
    if second == "gan":
        stored(tmp_path / second, gan_mlp.Config())
    else:
        (shutil.copytree(runs[1], tmp_path / second) / second).write_text("{")
    with pytest.raises(BadInput, match=re.escape(error)):
        compare.main([str(runs[0]), str(tmp_path / second), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("on_tiny")
def test_every_width_is_trained_and_shown(monkeypatch, tiny, out):
    monkeypatch.setattr(widths, "WIDTHS", (3, 7))
    monkeypatch.setattr(widths, "load_dataset", lambda *_: tiny)
    rows = widths.main(["--epochs", "1", "--out", str(out), "--quiet"])
    folder = out / "autoencoder" / "widths-001"
    written = table(folder / "widths.csv")
    found = {int(hidden): float(written[hidden][written["hidden"].index("test_mse")]) for hidden in ("3", "7")}
    assert {row["hidden"]: row["test_mse"] for row in rows} == found
    assert [autoencoder.load(run).config.hidden for run in sorted((folder / "autoencoder").iterdir())] == [3, 7]
    assert (folder / "widths.png").stat().st_size > 5_000


def test_figure_1_shows_the_information_in_the_rows_of_each_setting_and_seed(monkeypatch, tmp_path):
    asked, shown = [], {}

    def run(arguments):
        asked.append(arguments)
        (tmp_path / "metrics.csv").write_text("epoch,info_c1_nats\n0,\n0.5,1.25\n1,2.3\n")
        return {3: tmp_path, 4: tmp_path}

    monkeypatch.setattr(figure_1.seeds, "main", run)
    monkeypatch.setattr(figure_1, "RESULTS", tmp_path)
    monkeypatch.setattr(figure_1, "save_lines", lambda path, groups, *_, **__: shown.update(groups))
    figure_1.main(["--seeds", "3-4", "--at-once", "2"])
    common = ["infogan.py", "--seeds", "3-4", "--epochs", "1", "--dataset", "mnist"]
    assert asked == [[*common, *setting, "--at-once", "2"] for setting in figure_1.SETTINGS.values()]
    assert shown == dict.fromkeys(figure_1.SETTINGS, [[(0.5, 1.25), (1, 2.3)]] * 2)


def test_accuracy_of_all_runs_is_shown_over_minutes_that_add_up(monkeypatch, tmp_path):
    shown = {}
    monkeypatch.setattr(accuracy_over_time, "save_lines", lambda path, groups, *_, **__: shown.update(groups))
    for study, seed, accuracies in (("default", 0, (0.5, 0.75)), ("default", 1, (0.9, 0.98)), ("paper", 0, (0.5,))):
        run = tmp_path / study / f"seed-{seed:03d}" / "infogan" / "run-001"
        run.mkdir(parents=True)
        lines = [f"{epoch},30,{value}\n" for epoch, value in enumerate(accuracies, 1)]
        (run / "metrics.csv").write_text("".join(["epoch,seconds,accuracy\n", *lines]))
    accuracy_over_time.main([str(tmp_path / "default"), str(tmp_path / "paper"), "--out", str(tmp_path)])
    assert shown == {"default, 2 seeds": [[(0.5, 50), (1, 75)], [(0.5, 90), (1, 98)]], "paper, 1 seeds": [[(0.5, 50)]]}
    shutil.rmtree(tmp_path / "default")
    shown.clear()
    accuracy_over_time.main([str(tmp_path / "paper"), "--out", str(tmp_path)])  # the csv keeps what is gone
    assert list(shown) == ["default, 2 seeds", "paper, 1 seeds"]


@pytest.mark.parametrize("script", CLASSES)
def test_both_sides_reach_the_same_losses(script):
    """InfoGAN with a tenth of its learning rates: at the full ones Adam's first steps, which know little more of a
    gradient than its sign, let the last bits in which two memory formats differ grow twentyfold with every update."""
    fields = {"learning_rate_d": 2e-5, "learning_rate_g": 1e-4} if script == "infogan" else {}
    config, tolerance = CLASSES[script](**fields), 2e-3 if fields else 1e-5
    x = torch.rand(4, 32, 1, 28, 28, generator=torch.Generator().manual_seed(5)).square()
    losses = []
    for make in (lambda: throughput.script_side(config, "float32"), lambda: throughput.TEXTBOOKS[script](config)):
        torch.manual_seed(3)
        _, update = make()
        torch.manual_seed(stream_seed(0, "training"))  # the textbook samples from the global state
        losses.append([{name: torch.as_tensor(value).item() for name, value in update(batch).items()} for batch in x])
    for ours, theirs in zip(*losses, strict=True):
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=tolerance)
    assert losses[1][0] != losses[1][-1], "nothing was trained"


def test_the_table_of_speeds_has_medians_of_turns_that_alternate(monkeypatch, tiny, capsys):
    times, asked = iter([200, 40, 300, 50, 100, 10]), []

    def submit(function, seconds, loop, *_):
        asked.append(loop)
        return SimpleNamespace(result=lambda: (next(times), 1 + len(asked) / 100))

    monkeypatch.setattr(throughput, "ProcessPoolExecutor", lambda *_: nullcontext(SimpleNamespace(submit=submit)))
    monkeypatch.setattr(throughput, "load_dataset", lambda *_: tiny)
    found = throughput.main(["--scripts", "gan_mlp", "--rounds", "3"])["gan_mlp"]
    assert asked == [throughput.textbook_loop, throughput.script_loop] * 3
    assert list(found.values()) == pytest.approx([200, 40, 5, 1.05, 1.06])
    assert re.search(r"gan_mlp +\w+ +200.0 ms +40.00 ms +5.00 +3200 +1.05 GB +1.06 GB\n", capsys.readouterr().out)


@pytest.mark.slow
def test_the_whole_command_is_timed_by_stage_and_to_an_accuracy(tmp_path):
    (tmp_path / "classifiers").mkdir()
    found = throughput.time_infogan(0.0, tmp_path, ["--smoke"])
    stages = ("imports", *throughput.STAGES.values(), "rest")
    assert min(found[stage] for stage in stages) > 0
    assert sum(found[stage] for stage in {*stages}) == pytest.approx(found["whole"])
    assert found["rest"] < found["whole"] / 3
    assert found["imports"] < found["to the accuracy"] < found["whole"]


def test_the_textbook_stops_at_its_accuracy_or_its_time(monkeypatch, tiny):
    images = [(x, label) for x, label in zip(tiny.train_images[:, None] / 255, tiny.train_labels, strict=True)]
    monkeypatch.setattr(throughput, "load_dataset", lambda *_: tiny)
    monkeypatch.setattr(throughput.datasets, "MNIST", lambda *_, **__: images)
    assert throughput.time_textbook(0.05, Path(), minutes=1)["epochs"] == 1
    assert throughput.time_textbook(1.01, Path(), minutes=0)["epochs"] == 0


def test_letters_are_a_folder_of_26_classes(tmp_path):
    letters.main([str(tmp_path / "letters"), "--images", "10"])
    data = load_dataset(str(tmp_path / "letters"), tmp_path)
    assert "".join(data.classes) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert len(data.train_images) + len(data.test_images) == 260
    with pytest.raises(BadInput, match="exists already"):
        letters.main([str(tmp_path / "letters")])


def test_a_seed_is_finished_whatever_the_set_has_decided_in_place_of_a_default(tmp_path):
    run = stored(tmp_path / "infogan" / "run-001", infogan.Config(categories=26, dataset="drawn"), epochs=3)
    assert seeds.finished(tmp_path, infogan.Config()) == run
    with pytest.raises(BadInput, match="categories 26, not 20"):
        seeds.finished(tmp_path, infogan.Config(categories=20))

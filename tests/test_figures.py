"""benchmarks/figure_1.py and accuracy_over_time.py: what is measured, what is run again, what the pictures show."""

import csv
import math

import pytest

import infogan
from benchmarks import accuracy_over_time, figure_1
from benchmarks.accuracy_over_time import accuracy
from common import BadInput
from common.run import read_rows


@pytest.fixture
def every_update(monkeypatch, on_tiny, tiny):
    """Short readings, 128 drawn digits for MNIST, a point at every update."""
    monkeypatch.setattr("common.guide.UPDATES", 5)
    monkeypatch.setattr(figure_1, "load_dataset", lambda *_: tiny)
    monkeypatch.setattr(figure_1, "EVERY", 1)


@pytest.mark.parametrize("preset", [{}, infogan.Config.PAPER])
def test_a_run_of_figure_1_is_that_of_infogan(monkeypatch, every_update, tiny, out, preset):
    monkeypatch.setattr(infogan, "draw_epoch", lambda *_: None)
    monkeypatch.setattr(infogan, "report", lambda run, *_: {"folder": run.folder})
    config = infogan.Config(**{**preset, "epochs": 2, "batch_size": 64, "seed": 3, "out": out, "quiet": True})
    rows = read_rows(infogan.main(config)["folder"] / "metrics.csv")
    points = figure_1.trained(config, tiny.train_images)
    assert [updates for updates, _ in points] == [0, 1, 2, 3]
    nats = [nats for _, nats in points]
    assert [sum(nats[:2]) / 2, sum(nats[2:]) / 2] == pytest.approx([row["info_c1_nats"] for row in rows], abs=1e-5)


def test_figure_1_runs_each_setting_and_seed_once(monkeypatch, every_update, tmp_path, capsys):
    flags = ["--epochs", "2", "--out", str(tmp_path), "--seeds"]
    figure_1.main([*flags, "1"])
    with (tmp_path / "figure_1.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["setting"], row["seed"], row["updates"]) for row in rows] == [
        (setting, "1", updates) for setting in sorted(figure_1.SETTINGS) for updates in "01"
    ]
    assert all(-2 < float(row["info_c1_nats"]) <= math.log(10) for row in rows)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"{setting}, seed 1" for setting in figure_1.SETTINGS
    ]
    picture = (tmp_path / "figure_1.png").read_bytes()

    asked = []
    monkeypatch.setattr(figure_1, "trained", lambda config, _: asked.append(config) or [(0, 0.5), (1, 1.5)])
    figure_1.main([*flags, "1"])
    assert (asked, capsys.readouterr().out) == ([], "")
    assert (tmp_path / "figure_1.png").read_bytes() == picture
    figure_1.main([*flags, "0-1"])
    assert [(config.seed, config.paper, config.info_weight) for config in asked] == [
        (0, False, 1.0),
        (0, True, 1.0),
        (0, True, 0.0),
    ]
    assert figure_1.read_curves(tmp_path / "figure_1.csv").keys() == {(s, n) for s in figure_1.SETTINGS for n in (0, 1)}
    with pytest.raises(BadInput, match="has 2 points, not 3"):
        figure_1.main(["--epochs", "3", "--out", str(tmp_path), "--seeds", "1"])


def write_run(study, seed, accuracies):
    run = study / f"seed-{seed:03d}" / "infogan" / "run-001"
    run.mkdir(parents=True)
    lines = [f"{epoch},30,{value}" for epoch, value in enumerate(accuracies, 1)]
    (run / "metrics.csv").write_text("\n".join(["epoch,seconds,accuracy", *lines]) + "\n")
    return run


def test_minutes_add_up(tmp_path):
    assert accuracy(write_run(tmp_path, 0, [0.5, 0.75])) == [(0.5, 50), (1.0, 75)]


def test_all_runs_of_the_studies_are_drawn(monkeypatch, tmp_path):
    drawn = {}
    save_lines = accuracy_over_time.save_lines
    monkeypatch.setattr(
        accuracy_over_time,
        "save_lines",
        lambda path, groups, *a, **b: drawn.update(groups) or save_lines(path, groups, *a, **b),
    )
    for seed in (0, 1):
        write_run(tmp_path / "default", seed, [0.9, 0.98])
        write_run(tmp_path / "paper", seed, [0.5, 0.6, 0.7])
    accuracy_over_time.main([str(tmp_path / "default"), str(tmp_path / "paper"), "--out", str(tmp_path / "results")])
    assert {name: [len(line) for line in lines] for name, lines in drawn.items()} == {
        "default, 2 seeds": [2, 2],
        "paper, 2 seeds": [3, 3],
    }
    assert (tmp_path / "results" / "accuracy.png").stat().st_size > 10_000


def test_a_study_without_a_run_or_without_labels_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="has no run of infogan"):
        accuracy_over_time.main([str(tmp_path)])
    run = write_run(tmp_path, 0, [])
    (run / "metrics.csv").write_text("epoch,seconds,loss_d\n1,30,0.5\n")
    with pytest.raises(BadInput, match="no accuracy"):
        accuracy_over_time.main([str(tmp_path)])

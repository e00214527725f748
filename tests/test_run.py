"""What a run promises when it is stopped, killed, starved of space or fed with what is no number."""

import gc
import math
import os
import re
import shlex
import shutil
import signal
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from common import BadInput, RunFailed, Stopped
from common.files import read_json, write_json
from common.optim import adam, descend
from common.progress import TIME_COLUMNS
from common.run import PLOT_EVERY, Run
from common.settings import ROOT, Settings
from tests import children
from tests.children import EPOCHS, SCRIPTS, UPDATES, child, flags_of, go_on, whole
from tests.helpers import pictures, rows_without_time

EACH = pytest.mark.parametrize("script", SCRIPTS)
QUICK = ("autoencoder", "gan_mlp")
EACH_AT_LENGTH = pytest.mark.parametrize("script", [*QUICK, pytest.param("infogan", marks=pytest.mark.slow)])
# Of the files that a run writes, every so-many-th meets harm, a checkpoint among them: all would take minutes.
STRIDE = {"autoencoder": 4, "gan_mlp": 5, "infogan": 11}


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def same_checkpoint(one: Path, other: Path) -> bool:
    return (one / "checkpoint.pt").read_bytes() == (other / "checkpoint.pt").read_bytes()


def assert_ends_well(script: str, folder: Path, err: str = "") -> None:
    """By the command that is printed, if any, the run goes on to the files of one that nothing happened to, equal but
    for the times, and to no other."""
    called, *flags = shlex.split(err.partition("go on with: python ")[2]) or (f"{ROOT}/{script}.py", *go_on(folder))
    said, expected = child(script, *flags), whole(script)
    assert called == f"{ROOT}/{script}.py"
    assert said.status == 0, said
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    assert same_checkpoint(folder, expected)
    assert rows_without_time(folder) == rows_without_time(expected)
    found = pictures(folder)
    assert [name for name, content in pictures(expected).items() if found[name] != content] == []


# A run, used by a toy ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Toy(Settings):
    epochs: int = 0  # a length that is chosen is kept
    batch_size: int = 96
    seed: int = 0

    SCRIPT: ClassVar = "toy"


@pytest.fixture
def train(monkeypatch, tiny, out):
    """Train a toy, calling `do` after every update and `look` after every epoch. Returns the run."""
    monkeypatch.setattr("common.run.load_dataset", lambda *_: tiny)

    def call(do=lambda run: None, look=lambda run: None, **fields: object) -> Run:
        usual = {"out": out, "dataset": "drawn", "device": "cpu", "precision": "float32", "epochs": EPOCHS}
        with Run(Toy(**usual | fields)) as run:
            torch.manual_seed(run.config.seed)
            model, random = nn.Linear(2, 1), run.stream("training")
            optimizer = adam(model, 0.01)
            run.restore(model=model, optimizer=optimizer, random=random)
            for _ in run.remaining_epochs():
                for batch in run.batches():
                    loss = model(torch.randn(len(batch), 2, generator=random)).square().mean() + torch.rand(())
                    descend(optimizer, loss)
                    run.add({"loss": loss, "size": torch.tensor(len(batch))})
                    do(run)
                run.end_epoch(run.means(), {"loss": "loss %"}, warnings=(None, "odd" if run.epoch else None))
                look(run)
            run.finish({"note": None, "score": 0.5}, {"score": "half"}, "codes.png", warnings=("odd",))
            return run

    return call


def stop_at(update: int, *numbers: int):
    return lambda run: [os.kill(os.getpid(), number) for number in numbers] if run.updates == update - 1 else None


def test_a_run_counts_averages_and_reports(train, capsys):
    seen = []
    run = train(lambda run: seen.append((run.epoch, run.step, run.updates, round(run.progress, 3))), epochs=2)
    assert seen == [(0, 0, 0, 0), (0, 1, 1, 0.25), (1, 0, 2, 0.5), (1, 1, 3, 0.75)]
    assert [list(row) for row in run.rows] == [["epoch", *TIME_COLUMNS, "loss", "size"]] * 2
    assert [(row["epoch"], row["size"]) for row in run.rows] == [(1, 64), (2, 64)]  # of 96 and 32 images
    assert all(row["seconds"] > 0 and row["images_per_second"] > 0 for row in run.rows)
    seconds = pytest.approx(sum(row["seconds"] for row in run.rows))
    report = {"dataset": "drawn", "epochs": 2, "note": None, "score": 0.5, "warning": "odd", "seconds": seconds}
    assert read_json(run.folder / "report.json") == report
    said = r"toy on drawn digits, not MNIST, epochs 1 to 2 of 2 updates on 128 images, device cpu, .*, seed 0\n"
    said += rf"folder {run.folder}\nepoch  seconds  images/s  loss %\n"
    said += r"  1/2 +\d+\.\d +\d+ +[\d.]+\n  2/2 +\d+\.\d +\d+ +\d+\.\d\n  WARNING: odd\n"
    said += r"\ntoy on .*, after 2 epochs\n  WARNING +odd\n  score +half\n"
    said += rf"  look at +{run.folder / 'codes.png'}\n  folder +{run.folder}\n  train on with .* --epochs 4\n"
    assert re.fullmatch(said, capsys.readouterr().out)


@pytest.mark.parametrize("update", range(1, 2 * EPOCHS + 1))
def test_a_stop_after_any_update_goes_on_to_the_same_bytes(train, update):
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [*map(signal.getsignal, numbers)]
    expected, folder = train(quiet=True), train(epochs=(update + 1) // 2).folder  # the second one is to be longer
    with pytest.raises(Stopped) as stopped:
        train(stop_at(update, numbers[update % 2]))
    assert str(stopped.value) == f"stopped in epoch {(update + 1) // 2}"
    assert [*map(signal.getsignal, numbers)] == handlers
    stopped_folder = expected.folder.with_name("run-003")
    command = shlex.join(["python", str(ROOT / "toy.py"), "--resume", str(stopped_folder)])
    assert stopped.value.__notes__ == [f"go on with: {command}"]
    assert checkpoint(stopped_folder)["epoch"] * 2 + checkpoint(stopped_folder)["step"] == update
    for other in (stopped_folder, folder):
        assert [row["epoch"] for row in train(resume=other).rows] == [1, 2]
        assert same_checkpoint(other, expected.folder)
    for field, value in (("epochs", 1), ("seed", 1), ("batch_size", 32), ("smoke", True)):
        with pytest.raises(BadInput, match=rf"--{field.replace('_', '-')} (1: the run in .* is further|was .* there)"):
            train(resume=folder, **{field: value})


def test_a_stop_between_epochs_loses_nothing_and_a_second_signal_ends_at_once(train):
    with pytest.raises(Stopped) as stopped:
        train(look=lambda run: os.kill(os.getpid(), signal.SIGINT))
    assert str(stopped.value) == "stopped after epoch 1"
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(stop_at(2, signal.SIGINT, signal.SIGTERM))
    assert "run-002" in stopped.value.__notes__[0]


def test_only_what_can_go_on_says_how(train, tmp_path):
    def fail(error: Exception, run: Run) -> None:
        raise error

    for error in (ZeroDivisionError(), OSError(), RunFailed("sick"), BadInput("wrong")):
        with pytest.raises(type(error)):
            train(partial(fail, error), data_dir=tmp_path / "my data")
        notes = getattr(error, "__notes__", [])
        assert bool(notes) == (not isinstance(error, (RunFailed, BadInput)))
        assert all(f"--data-dir '{tmp_path / 'my data'}'" in note for note in notes)


def test_a_terminal_and_another_thread_change_no_byte_and_a_quiet_run_says_nothing(train, capsys, monkeypatch):
    """Nor is a library's warning shown in a quiet one. In another thread Python lets nobody handle signals."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    handler, filters, seen = signal.getsignal(signal.SIGINT), [*warnings.filters], []
    expected = train(lambda run: warnings.warn("of a library", stacklevel=1), quiet=True)
    assert (capsys.readouterr(), warnings.filters) == (("", ""), filters)
    with ThreadPoolExecutor() as threads:
        run = threads.submit(train, look=lambda run: seen.append(signal.getsignal(signal.SIGINT))).result()
    assert (seen, "4/4" in capsys.readouterr().err) == ([handler] * EPOCHS, True)
    assert same_checkpoint(run.folder, expected.folder)


def test_no_tensor_of_an_update_is_kept(train):
    counts = []
    train(look=lambda _: counts.append(sum(issubclass(type(kept), torch.Tensor) for kept in gc.get_objects())))
    assert counts[-1] <= counts[1]


def test_plots_are_drawn_at_the_end_and_before_it_not_too_often(train, monkeypatch):
    clock, drawn = [1000.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def look(run: Run) -> None:
        drawn.append(run.plot_due())
        clock[0] += PLOT_EVERY / 2.5

    train(lambda run: clock.append(clock.pop() + 0.01), look, epochs=8)
    assert [epoch for epoch, due in enumerate(drawn, 1) if due] == [1, 4, 7, 8]


@pytest.mark.parametrize("content", [b"", b"epoch,seconds\n1\n", b"\xff\xfe"])
def test_metrics_that_are_lost_or_damaged_come_back_from_the_checkpoint(train, capsys, content):
    run = train()
    before, path = rows_without_time(run.folder), run.folder / "metrics.csv"
    path.write_bytes(content) if content else path.unlink()
    train(resume=run.folder)
    assert capsys.readouterr().err == f"{path}: written anew from the checkpoint, without times\n"
    assert rows_without_time(run.folder) == before


# The scripts, stopped and going on ------------------------------------------------------------------------------------

SICK = "epoch {}: {}; checkpoint.pt in .*run-001 is the last good one"
LOSS, WEIGHT = r"\w+ is nan", r"model\.[\w.]+ is not finite"
# script, harm, exit status, what the one line says, updates in the checkpoint
MOMENTS = [
    *((script, partial(children.signal_at, signal.SIGINT, 1), 130, "stopped in epoch 1", 1) for script in SCRIPTS),
    ("gan_mlp", partial(children.signal_at, signal.SIGTERM, UPDATES * EPOCHS), 130, "stopped in epoch 2", 4),
    ("infogan", partial(children.signal_while_reading, signal.SIGTERM, 4), 130, "stopped", 0),
    ("infogan", partial(children.signal_while_reading, signal.SIGKILL, 4), -signal.SIGKILL, "", 0),
    *((script, partial(children.signal_at, signal.SIGKILL, 4), -signal.SIGKILL, "", 2) for script in QUICK),
    *((script, partial(children.poison_at, math.nan, 1), 1, SICK.format(1, LOSS), 0) for script in SCRIPTS),
    *((script, partial(children.poison_at, math.nan, 3), 1, SICK.format(2, LOSS), 2) for script in QUICK),
    *((script, partial(children.poison_at, math.inf, 4), 1, SICK.format(2, WEIGHT), 2) for script in QUICK),
]


@pytest.mark.parametrize(("script", "harm", "status", "line", "updates"), MOMENTS)
def test_a_stopped_or_sick_run_goes_on_to_the_same_bytes(out, script, harm, status, line, updates):
    said, folder = child(script, *flags_of(script, out), harm=harm), out / script / "run-001"
    assert (said.status, said.err.count("\n")) == (status, status > 0), said
    assert re.search(line, said.err), said
    assert checkpoint(folder)["epoch"] * UPDATES + checkpoint(folder)["step"] == updates
    assert not (folder / "report.json").exists()
    assert ("go on with" in said.err) == (status == 130)
    assert_ends_well(script, folder, said.err)


@EACH_AT_LENGTH
@pytest.mark.parametrize(("what", "status"), [("signal", 130), ("full", 1), ("killed", -signal.SIGKILL)])
def test_harm_to_any_file_costs_at_most_the_epoch_under_way(out, script, what, status):
    """SIGTERM ends a run at once before training, and after the epoch within it."""
    for n in range(1, 100, STRIDE[script]):
        place = out.parent / f"file {n}" / "outputs"
        said = child(script, *flags_of(script, place), harm=partial(children.harm_file, what, n))
        if said.status == 0:
            break  # there are fewer than n files
        assert (said.status, said.err.count("\n")) == (status, status > 0), said
        assert what != "full" or "File too large" in said.err
        folder = place / script / "run-001"
        assert len(list(folder.glob(".*"))) == (what == "killed")
        begun = (folder / "config.json").exists()
        assert ("go on with" in said.err) == (begun and what != "killed")
        if begun:
            assert_ends_well(script, folder, said.err)
        assert begun or not re.search("^epoch ", said.out, re.M)  # nothing was trained yet
        shutil.rmtree(place.parent)
    assert n > 10


@EACH
def test_a_run_goes_on_elsewhere_on_another_device_in_another_precision_and_further(script, tmp_path):
    """What resuming needs is in the run folder, wherever that is."""
    folder = tmp_path / "moved" / "outputs" / script / "run-001"
    shutil.copytree(whole(script), folder)
    rows, content = rows_without_time(folder), checkpoint(folder)
    write_json(folder / "config.json", read_json(folder / "config.json") | {"device": "cuda"})
    if "random" in content:  # a card's generator has a state of this size; here it begins a new sequence
        torch.save(content | {"random": torch.zeros(16, dtype=torch.uint8)}, folder / "checkpoint.pt")
    said = child(script, *go_on(folder, "--device", "cpu", "--precision", "bfloat16", "--epochs", EPOCHS + 2))
    assert said.status == 0, said
    assert rows_without_time(folder)[:-2] == rows
    changed = {"device": "cpu", "precision": "bfloat16", "epochs": EPOCHS + 2}
    assert read_json(folder / "config.json").items() >= changed.items()

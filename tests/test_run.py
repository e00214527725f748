"""What a run promises: its files, its checkpoint, and that nothing which stops, starves or poisons it costs more than
the epoch under way."""

import contextlib
import errno
import math
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image
from torch import nn

import autoencoder
from common import BadInput, Stopped
from common.data import load_dataset
from common.run import files
from common.run.checkpoint import FORMAT, read_checkpoint, write_checkpoint
from common.run.cli import parse
from common.run.config import ROOT, Settings
from common.run.console import Console
from common.run.run import PLOT_EVERY, TIME_COLUMNS, Run
from common.train.optim import adam, optimizer_step
from tests import children
from tests.children import EPOCHS, SCRIPTS, UPDATES, assert_refused, child, flags_of, shell, whole
from tests.helpers import pictures, rows_without_time

# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "broken", "scratch")])
def test_a_file_appears_whole_and_after_an_error_the_old_one_stays(tmp_path, error):
    path = tmp_path / "my file"
    for text in ("old", "new"):
        with contextlib.suppress(KeyboardInterrupt, OSError), files.atomic_write(path) as scratch:
            scratch.write_text(text)
            if text == "new":
                raise error
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("my file", "old")]


def test_a_disk_that_fills_up_within_a_tensor_is_an_error_of_the_file_whose_old_content_stays(tmp_path, capfd):
    """There torch.save raises an error of its own, not the disk's."""
    path, limits = tmp_path / "checkpoint.pt", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_text("old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            write_checkpoint(path, {"weight": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert [found.read_text() for found in tmp_path.iterdir()] == ["old"]
    assert capfd.readouterr() == ("", "")


DAMAGED = [(files.read_json, content) for content in (b"{", b"[]", b"\xff\xfe", b"[" * 100_000)]
DAMAGED += [(files.read_rows, content) for content in (b"epoch,loss\n1\n", b"epoch\n1,2\n", b"epoch\nmany\n")]


@pytest.mark.parametrize(("read", "content"), DAMAGED)
def test_a_damaged_file_and_a_folder_in_its_place_are_named(tmp_path, read, content):
    (tmp_path / "file").write_bytes(content)
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(BadInput, match=f"^{path}: .*$"):
            read(path)


def test_folders_take_the_next_free_number_and_two_threads_never_share_one(tmp_path):
    for name in ("run-002", "run-009", "run-abc", "run-1x", "seed-050"):
        (tmp_path / "new" / name).mkdir(parents=True)
    (tmp_path / "new" / "run-010").touch()
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(files.numbered_folder, [tmp_path / "new"] * 60))
    assert sorted(path.name for path in found if path.is_dir()) == [f"run-{number:03d}" for number in range(11, 71)]
    for parent in ("run-010", "run-010/inner"):
        with pytest.raises(BadInput, match=f"^--out: .*/{parent}: "):
            files.numbered_folder(tmp_path / "new" / parent)


# The checkpoint ------------------------------------------------------------------------------------------------------


class Accomplice:
    """Unpickling it would end this process."""

    def __reduce__(self):
        return os._exit, (3,)


def entry(name: str, value: object, path: Path) -> None:
    """Another value of the first entry that matches; `...` removes it, a function changes it."""
    content = torch.load(path, weights_only=True)
    key = next((key for key in content if re.fullmatch(name, key)), name)
    content[key] = value(content[key]) if callable(value) else value
    torch.save({key: value for key, value in content.items() if value is not ...}, path)


# What happens to a file of a finished run, and what the line must say of which file
CHECKPOINT = {
    "none": (Path.unlink, "cannot be read"),
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 5000), "holds no weights"),
    "altered": (lambda path: path.write_bytes(path.read_bytes().replace(b"ctorch", b"ctroch")), "holds no weights"),
    "no pickle": (lambda path: path.write_bytes(b"garbage " * 1000), "holds no weights"),
    "one that runs code": (lambda path: torch.save({"epoch": Accomplice()}, path), "holds no weights"),
    "of an older format": (partial(entry, "format", 3), f"its format is 3 and not {FORMAT}"),
    "a weight missing": (partial(entry, r"model\..*weight", ...), "does not fit config.json"),
    "a weight of another shape": (partial(entry, r"model\..*weight", lambda x: x[:, :-1]), "does not fit config.json"),
}
STATE = {  # which a run needs and a model does not
    "no epoch": (partial(entry, "epoch", ...), "does not fit config.json"),
    "half a random state": (partial(entry, "torch_random_state", lambda x: x[:9]), "does not fit config.json"),
    "moments of another shape": (partial(entry, r"optimizer\..*exp_avg", lambda x: x[:9]), "does not fit config.json"),
    "no metrics": (
        lambda path: path.with_name("metrics.csv").unlink(),
        "has rows of 0 epochs, but checkpoint.pt is after",
    ),
    "metrics of bytes": (lambda path: path.with_name("metrics.csv").write_bytes(b"\xff\xfe"), "is damaged"),
}


def listing(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("what", CHECKPOINT | STATE)
def test_a_checkpoint_or_metrics_that_do_not_fit_are_one_line_and_nothing_is_written(out, what):
    shutil.copytree(whole("autoencoder"), out)
    path, (harm, line) = out / "checkpoint.pt", (CHECKPOINT | STATE)[what]
    harm(path)
    before = listing(out)
    named = path.with_name("metrics.csv") if "metrics" in what else path
    assert_refused(shell("autoencoder", "--resume", out), "autoencoder", f"{named}: ", line)
    with contextlib.nullcontext() if what in STATE else pytest.raises(BadInput, match=f"^{path}: .*{line}"):
        autoencoder.load(out)
    assert listing(out) == before


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_finished_run_loads_in_eval_mode_on_the_cpu_from_its_folder_or_a_file_in_it(script):
    folder = whole(script)
    content = read_checkpoint(folder / "checkpoint.pt")
    for given in (str(folder), folder / "checkpoint.pt"):
        model = SCRIPTS[script].load(given)
        assert all(torch.equal(value, content[f"model.{name}"]) for name, value in model.state_dict().items())
        assert not any(module.training for module in model.modules())
    with pytest.raises(BadInput, match="there is no such run folder"):
        SCRIPTS[script].load(folder / "none")


# A run, used by a toy ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Toy(Settings):
    epochs: int = 0  # a length and a batch size that are chosen are kept
    batch_size: int = 0
    seed: int = 0

    SCRIPT: ClassVar = "toy"
    NAME: ClassVar = "Toy"


@pytest.fixture
def train(monkeypatch, tiny, out):
    """Train a toy, calling `do` after every update and `look` after every epoch. Returns the run. `train.batches` are
    the indices of its updates, run after run."""
    noted = replace(tiny, note="loaded so", warnings=("odd images", "few of them"))
    sets = {"auto": tiny, "drawn": tiny, "noted": noted}
    sets |= {"mnist": replace(tiny, name="mnist"), "kmnist": replace(tiny, test_images=255 - tiny.test_images)}
    monkeypatch.setattr("common.run.run.load_dataset", lambda name, *rest: sets.get(name) or load_dataset(name, *rest))

    def call(do=lambda run: None, look=lambda run: None, config: Toy | None = None, **fields: object) -> Run:
        usual = {"dataset": "drawn", "device": "cpu", "precision": "float32", "epochs": EPOCHS, "batch_size": 96}
        with Run(config or Toy(**{"out": out} | usual | fields)) as run:
            torch.manual_seed(run.config.seed)
            model, random = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), run.stream("training")
            optimizer, momentum = adam(model, 0.01), torch.optim.SGD(model.parameters(), 0.01, momentum=0.5)
            run.restore(model=model, adam=optimizer, sgd=momentum, random=random)
            for _ in run.remaining_epochs():
                for batch in run.batches():
                    call.batches.append(batch.tolist())
                    loss = model(torch.randn(len(batch), 2, generator=random)).square().mean() + torch.rand(())
                    optimizer_step(optimizer, loss)
                    momentum.step()
                    run.log({"loss": loss, "size": torch.tensor(len(batch))})
                    do(run)
                run.end_epoch(
                    run.means(), {"loss": "loss %"}, "as it is", warnings=(None, "odd" if run.epoch else None)
                )
                look(run)
            run.finish({"note": None, "score": 0.5}, {"score": "half"}, "codes.png", warnings=("odd", "end"))
            return run

    call.batches = []
    return call


def stop_at(update: int, *numbers: int):
    return lambda run: [os.kill(os.getpid(), number) for number in numbers] if run.updates == update - 1 else None


def place(folder: Path) -> int:
    """The updates that a checkpoint holds."""
    content = read_checkpoint(folder / "checkpoint.pt")
    return content["epoch"] * UPDATES + content["step"]


def same_checkpoint(one: Path, other: Path) -> bool:
    return (one / "checkpoint.pt").read_bytes() == (other / "checkpoint.pt").read_bytes()


WARNED = "WARNING: odd images\nWARNING: few of them\nWARNING: odd\n"


def test_a_run_counts_averages_reports_and_says_what_is_doubtful(train, capsys):
    seen = []
    run = train(lambda run: seen.append((run.epoch, run.step, run.updates, run.progress)), dataset="noted", epochs=3)
    assert seen[:4] == [(0, 0, 0, 0), (0, 1, 1, 1 / 6), (1, 0, 2, 1 / 3), (1, 1, 3, 0.5)]
    assert [list(row) for row in run.rows] == [["epoch", "seconds"], *[["epoch", *TIME_COLUMNS, "loss", "size"]] * 6]
    assert [(row["epoch"], row["size"]) for row in run.rows[1:5]] == [(0.5, 96), (1, 32), (1.5, 96), (2, 32)]
    assert run.epoch_rows == run.rows[2::2]
    orders = [[*first, *second] for first, second in zip(train.batches[::2], train.batches[1::2], strict=True)]
    assert [sorted(order) for order in orders] == [[*range(128)]] * 3
    assert len({*map(tuple, orders)}) == 3
    seconds = pytest.approx(sum(row["seconds"] for row in run.rows))
    report = {"dataset": "drawn", "epochs": 3, "note": None, "score": 0.5, "warning": "odd; end", "seconds": seconds}
    assert files.read_json(run.folder / "report.json") == report
    said = r"Toy on rendered digits \(not MNIST\): 3 epochs of 2 updates, 128 images\ndevice cpu, .*, seed 0\n"
    said += rf"folder {run.folder}\nloaded so\nas it is\nepoch  seconds  loss %\n"
    said += r"  1/3 +\d+\.\d +[\d.]+\n  2/3 +\d+\.\d +\d+\.\d\n  3/3 .*\n"
    said += r"\nToy on .* after 3 epochs\n  WARNING +odd; end\n  score +half\n  time +0 min \d+ s before judging\n"
    said += rf"  look at +{run.folder / 'codes.png'}\n  folder +{run.folder}\n  train longer +python .* --epochs 6\n"
    captured = capsys.readouterr()
    assert re.fullmatch(said, captured.out)
    assert captured.err == WARNED  # "odd" once, though in two epochs


def test_a_line_of_the_console_shows_the_digits_that_matter_below_headings_that_come_once(capsys):
    console, row = Console(quiet=False), {"epoch": 3, "seconds": 1.25, "images_per_second": 1234.6}
    row |= {"loss": 12.345, "error": 0.0123456, "ratio": 0.5, "dead": 7, "share": 0.984, "unseen": 1.0}
    columns = {"loss": "loss D", "error": "test error", "ratio": "over PCA", "dead": "dead", "share": "right %"}
    console.say_epoch(row, 12, columns | {"none": "not measured"})
    console.say_epoch(row | {"epoch": 12, "error": 0.00123}, 12, columns)
    assert capsys.readouterr().out.splitlines() == [
        "epoch  seconds  loss D  test error  over PCA    dead  right %",
        " 3/12      1.2    12.3       0.012     0.500       7     98.4",
        "12/12      1.2    12.3     0.00123     0.500       7     98.4",
    ]
    console.say_epoch(row | {"epoch": 100, "loss": -0.0059}, 100, {"loss": "loss D"})
    assert capsys.readouterr().out == "  100      1.2  -0.006\n"  # wider cells would not fit into 80 characters


def test_a_bar_that_nobody_watches_soon_says_how_long_it_will_take(capsys, monkeypatch):
    clock = [0]
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    with Console(quiet=False).bar(100, "training", done=20) as bar:
        for clock[0] in range(1, 61):
            bar.update()
    at = {25: "01:15", 45: "00:55", 65: "00:35"}  # an update a second, after 5 seconds and every 20
    assert capsys.readouterr().out == "".join(f"  training: {done}% done, {left} left\n" for done, left in at.items())


def test_only_what_has_a_path_is_longer_than_80_characters(out):
    """Class names of InfoGAN's scorecard fill more than a line."""
    said = child("infogan", *flags_of("infogan", out, "--continuous", 4, "--categories", 2))
    lines = [line for line in (said.out + said.err).splitlines() if str(out) not in line]
    assert (said.status, len(lines) > 20, [line for line in lines if len(line) > 80]) == (0, True, []), said


def test_a_quiet_run_says_its_warnings_alone_and_a_thread_of_a_terminal_changes_no_byte(train, capsys, monkeypatch):
    """In another thread Python lets nobody handle signals."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    handler, seen = signal.getsignal(signal.SIGINT), []
    expected = train(quiet=True, dataset="noted")
    assert capsys.readouterr() == ("", f"{WARNED}WARNING: odd; end\n")
    with ThreadPoolExecutor() as threads:
        run = threads.submit(train, look=lambda run: seen.append(signal.getsignal(signal.SIGINT))).result()
    err = capsys.readouterr().err
    assert (seen, "4/4" in err, "WARNING: odd\n" in err) == ([handler] * EPOCHS, True, True)
    assert same_checkpoint(run.folder, expected.folder)


@pytest.mark.parametrize("update", range(1, UPDATES * EPOCHS + 1))
def test_a_stop_after_any_update_goes_on_to_the_same_bytes(train, update):
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [*map(signal.getsignal, numbers)]
    expected, batches = train(quiet=True), [*train.batches]
    longer = train(epochs=(update + 1) // 2).folder
    with pytest.raises(Stopped) as stopped:
        train(stop_at(update, numbers[update % 2]))
    assert str(stopped.value) == f"stopped in epoch {(update + 1) // 2}"
    assert [*map(signal.getsignal, numbers)] == handlers
    folder = expected.folder.with_name("run-003")
    assert stopped.value.__notes__ == [f"continue with: python {ROOT}/toy.py --resume {shlex.quote(str(folder))}"]
    assert place(folder) == update
    for other, done in ((folder, update), (longer, (update + 1) // 2 * UPDATES)):
        train.batches.clear()
        assert [row["epoch"] for row in train(resume=other).rows] == [0, 0.5, 1, 1.5, 2]
        assert train.batches == batches[done:]
        assert same_checkpoint(other, expected.folder)
        assert rows_without_time(other) == rows_without_time(expected.folder)


def test_a_stop_between_epochs_loses_nothing_and_a_second_signal_ends_at_once(train):
    with pytest.raises(Stopped) as stopped:
        train(look=lambda run: os.kill(os.getpid(), signal.SIGINT))
    assert str(stopped.value) == "stopped after epoch 1"
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(stop_at(2, signal.SIGINT, signal.SIGTERM))
    assert "run-002" in stopped.value.__notes__[0]


def test_of_a_killed_run_the_rows_up_to_its_checkpoint_are_kept(train):
    """It was killed after metrics.csv was written and before the checkpoint was."""
    expected, killed = train().folder, train(epochs=1).folder
    for name in ("metrics.csv", ".checkpoint.pt.1.partial"):
        shutil.copy(expected / "metrics.csv", killed / name)
    with pytest.raises(Stopped):
        train(stop_at(3, signal.SIGINT), resume=killed)
    assert [row["epoch"] for row in rows_without_time(killed)] == ["0", "0.5", "1", "1.5"]
    assert not list(killed.glob(".*"))
    train(resume=killed)
    assert rows_without_time(killed) == rows_without_time(expected)


def test_a_run_goes_on_with_the_same_fields_and_images_alone(train):
    folder = train(dataset="auto", device="auto", precision="auto").folder
    assert "auto" not in files.read_json(folder / "config.json").values()  # a resumed run must not decide again
    before = listing(folder)
    for fields, line in (
        ({"epochs": 1}, "--epochs 1: the run in .* is further already"),
        ({"seed": 1}, "--seed was 0 there, not 1"),
        ({"dataset": "kmnist"}, "its training and test images were others than those of drawn in "),
    ):
        with pytest.raises(BadInput, match=line):
            train(resume=folder, **fields)
    assert listing(folder) == before
    train(resume=folder, dataset="mnist", precision="bfloat16", epochs=3)
    stored = files.read_json(folder / "config.json")
    assert [stored[name] for name in ("dataset", "precision", "epochs")] == ["mnist", "bfloat16", 3]


def test_the_images_of_a_run_are_found_again_moved_or_not_and_must_be_the_same(train, tiny, tmp_path, monkeypatch):
    images, moved = tmp_path / "my images", tmp_path / "moved"
    images.mkdir()
    for number, image in enumerate(tiny.train_images):
        Image.fromarray(image.numpy()).save(images / f"{number:03d}.png")
    monkeypatch.chdir(tmp_path)
    folder = train(dataset="my images", data_dir=Path("my data")).folder
    monkeypatch.chdir("/")

    def resume(*flags: object) -> Run:
        return train(config=parse(Toy, ["--resume", str(folder), *map(str, flags)]))

    assert (resume().data.folder, resume().config.data_dir) == (images, tmp_path / "my data")
    images.rename(moved)
    with pytest.raises(BadInput, match=f"--dataset must be .* not {images}"):
        resume()
    assert resume("--dataset", moved, "--epochs", 3).data.folder == moved
    assert resume().epochs == 3  # from the new place
    shutil.copy(moved / "001.png", moved / "000.png")
    with pytest.raises(BadInput, match=f"--resume {folder}: its training and test images were others than .*{moved}"):
        resume()


def test_a_run_that_is_still_running_is_left_alone(train):
    """People believe that a run died with their connection. The lock of a dead process is free, whatever it left."""
    seen = []

    def resume(run: Run) -> None:
        with pytest.raises(BadInput, match=f"{run.folder}: another process trains this run"):
            train(resume=run.folder)
        seen.append(listing(run.folder))

    folder = train(resume).folder
    assert len(seen) == 2 * EPOCHS
    assert not (folder / ".lock").exists()
    (folder / ".lock").touch()  # as a killed process leaves it
    train(resume=folder, epochs=EPOCHS + 1)


def test_a_picture_that_fails_is_a_warning_and_a_full_disk_ends_the_run(train, capsys):
    def save_it(run: Run, error: Exception) -> None:
        raise error

    run = train(look=lambda run: run.attempt(save_it, ValueError("odd\nangle")), epochs=1)
    line = "save_it failed: ValueError: odd angle"
    assert f"WARNING: {line}\n" in capsys.readouterr().err
    assert files.read_json(run.folder / "report.json")["warning"] == f"{line}; odd; end"
    with pytest.raises(OSError, match="full"):
        train(look=lambda run: run.attempt(save_it, OSError(errno.ENOSPC, "full")))


def test_a_smoke_run_says_that_all_works_and_warns_of_nothing(train, capsys):
    run = train(smoke=True, epochs=2)
    said = capsys.readouterr()
    assert "everything works; after only 4 updates the pictures are noise" in said.out
    assert (said.err, files.read_json(run.folder / "report.json")["warning"]) == ("", None)


def test_about_a_hundred_epochs_keep_their_pictures(train):
    run = train()
    for epochs, every in ((3, 1), (101, 2), (600, 6)):
        run.epochs, due = epochs, []
        for run.epoch in range(epochs + 1):
            due += [run.epoch] if run.picture_due else []
        assert due == sorted({0, 1, *range(0, epochs, every), epochs})


def test_plots_are_drawn_at_the_end_and_before_it_not_too_often(train, monkeypatch):
    clock, plotted = [1000.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def look(run: Run) -> None:
        plotted.append(run.plot_due())
        clock[0] += PLOT_EVERY / 2.5

    train(lambda run: clock.append(clock.pop() + 0.01), look, epochs=8)
    assert [epoch for epoch, due in enumerate(plotted, 1) if due] == [1, 4, 7, 8]


# The scripts, stopped and going on -----------------------------------------------------------------------------------

SICK = "epoch {}: {}; checkpoint.pt in .*run-001 is the last good one"
WEIGHT = r"model\.[\w.]+ is not finite"
# script, harm, exit status, what the one line says, updates in the checkpoint
MOMENTS = [
    *((script, partial(children.signal_at, signal.SIGINT, 1), 130, "stopped in epoch 1", 1) for script in SCRIPTS),
    ("gan_mlp", partial(children.signal_at, signal.SIGTERM, UPDATES * EPOCHS), 130, "stopped in epoch 2", 4),
    ("gan_mlp", partial(children.signal_at, signal.SIGKILL, 4), -signal.SIGKILL, "", 2),
    ("gan_mlp", partial(children.poison_at, math.nan, 1), 1, SICK.format(1, WEIGHT), 0),
    ("autoencoder", partial(children.poison_at, math.nan, 3), 1, SICK.format(2, WEIGHT), 2),
    ("autoencoder", partial(children.poison_at, math.nan, 3, signal.SIGINT), 1, SICK.format(2, WEIGHT), 2),
]
# script, what happens to every so-many-th of its files: all of all would take minutes
HARMS = [("autoencoder", "killed", 1), ("autoencoder", "signal", 4), ("gan_mlp", "full", 4)]
HARMS += [pytest.param("infogan", "killed", 13, marks=pytest.mark.slow)]


def assert_ends_well(script: str, folder: Path, err: str = "") -> None:
    """By the command that is printed, if any, the run goes on to the files of one that nothing happened to, equal but
    for the times, and to no other."""
    command = [f"{ROOT}/{script}.py", "--resume", str(folder)]
    assert shlex.split(err.partition("continue with: python ")[2]) in ([], command)
    said, expected = child(script, *command[1:]), whole(script)
    assert said.status == 0, said
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    assert same_checkpoint(folder, expected)
    assert rows_without_time(folder) == rows_without_time(expected)
    found = pictures(folder)
    assert [name for name, content in pictures(expected).items() if found[name] != content] == []


def last_line(said: children.Shell, status: int) -> str:
    """The one line that says why a run ended so, below its warnings."""
    *warnings, last = said.err.splitlines() if status > 0 else [*said.err.splitlines(), ""]
    assert (said.status, [line for line in warnings if not line.startswith("WARNING: ")]) == (status, []), said
    return last


@pytest.mark.parametrize(("script", "harm", "status", "line", "updates"), MOMENTS)
def test_a_stopped_or_sick_run_goes_on_to_the_same_bytes(out, script, harm, status, line, updates):
    said, folder = child(script, *flags_of(script, out), harm=harm), out / script / "run-001"
    last = last_line(said, status)
    assert re.search(line, last), said
    assert place(folder) == updates
    assert not (folder / "report.json").exists()
    assert ("continue with" in last) == (status == 130)
    assert_ends_well(script, folder, last)


@pytest.mark.parametrize(("script", "what", "stride"), HARMS)
def test_harm_to_any_file_costs_at_most_the_epoch_under_way(out, script, what, stride):
    """SIGTERM ends a run at once before training, and after the epoch within it."""
    status = {"signal": 130, "full": 1, "killed": -signal.SIGKILL}[what]
    for n in range(1, 100, stride):
        base = out.parent / f"file {n}" / "outputs"
        said = child(script, *flags_of(script, base), harm=partial(children.harm_file, what, n))
        if said.status == 0:
            break  # there are fewer than n files
        last = last_line(said, status)
        assert what != "full" or "File too large" in last
        folder = base / script / "run-001"
        left = {path.suffix for path in folder.glob(".*")} - {""}  # a killed run leaves its lock, which is free
        assert left == ({".partial"} if what == "killed" else set())
        begun = (folder / "config.json").exists()
        assert ("continue with" in last) == (begun and what != "killed")
        if begun:
            assert_ends_well(script, folder, last)
        assert begun or not re.search("^epoch ", said.out, re.M)  # nothing was trained yet
        shutil.rmtree(base.parent)
    assert n > 10


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_goes_on_elsewhere_in_another_precision_and_further(script, tmp_path):
    """What resuming needs is in the run folder, wherever that is."""
    folder = tmp_path / "moved" / "outputs" / script / "run-001"
    shutil.copytree(whole(script), folder)
    said = child(script, "--resume", folder, "--precision", "bfloat16", "--epochs", EPOCHS + 2)
    assert said.status == 0, said
    assert rows_without_time(folder)[:-4] == rows_without_time(whole(script))
    assert files.read_json(folder / "config.json").items() >= {"precision": "bfloat16", "epochs": EPOCHS + 2}.items()

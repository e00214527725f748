"""What a run promises when it is stopped, killed, starved of space or fed with what is no number. Nothing is mocked:
the scripts run in processes of their own, which get real signals and real limits."""

import errno
import json
import math
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from common.classifier import SHARES, collapse
from common.guide import UNREAD
from common.run import ROOT
from tests.children import EPOCHS, OWN, SMALL, UPDATES, Child, HarmFile, PoisonAt, SignalAt, SignalWhileReading
from tests.helpers import pictures, rows_without_time, same_content

SCRIPTS = ("autoencoder", "gan_mlp", "infogan")
# Of the files that a run writes, every so-many-th meets harm, a checkpoint among them: all would take minutes.
STRIDE = {"autoencoder": 4, "gan_mlp": 5, "infogan": 11}
EACH = pytest.mark.parametrize("script", SCRIPTS)
EACH_AT_LENGTH = pytest.mark.parametrize(
    "script", ["autoencoder", "gan_mlp", pytest.param("infogan", marks=pytest.mark.slow)]
)


def flags_of(script: str, out: Path, *more: object) -> list[str]:
    return [*SMALL, *OWN[script], "--out", str(out), "--data-dir", str(out.parent / "data"), *map(str, more)]


def run_folder(script: str, out: Path, number: int = 1) -> Path:
    return out / script / f"run-{number:03d}"


def go_on(folder: Path, *more: object) -> list[str]:
    return ["--resume", str(folder), "--data-dir", str(folder.parents[2] / "data"), *map(str, more)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A function that gives the folder of a script's run that nothing happened to, and the seconds it took."""
    done, base = {}, tmp_path_factory.mktemp("whole")
    Child("autoencoder", "--help").finish()  # the server has imported everything before the first run is timed

    def of(script: str) -> tuple[Path, float]:
        if script not in done:
            out, start = base / script / "outputs", time.monotonic()
            status, said, err = Child(script, *flags_of(script, out)).finish()
            assert status == 0, said + err
            done[script] = run_folder(script, out), time.monotonic() - start
        return done[script]

    yield of
    shutil.rmtree(base)


def assert_same_run(found: Path, expected: Path) -> None:
    """The same weights, random states, metrics and pictures to the byte, the same files and no other."""
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}
    assert (found / "checkpoint.pt").read_bytes() == (expected / "checkpoint.pt").read_bytes()
    assert same_content(found, expected)
    assert rows_without_time(found) == rows_without_time(expected)
    found_pictures, expected_pictures = pictures(found), pictures(expected)
    assert [name for name, content in expected_pictures.items() if found_pictures[name] != content] == []


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


# Stopping and going on ---------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize(
    ("number", "update"),
    [(signal.SIGINT, 1), (signal.SIGTERM, UPDATES), (signal.SIGTERM, UPDATES * EPOCHS)],
    ids=["Ctrl-C in the first update", "SIGTERM in an epoch's last", "SIGTERM in the last of all"],
)
def test_a_signal_loses_no_update_and_the_printed_command_ends_with_the_same_bytes(whole, out, script, number, update):
    status, _, err = Child(script, *flags_of(script, out), harm=SignalAt(number, update)).finish()
    assert status == 130, err
    assert err.count("\n") == 1
    folder = run_folder(script, out)
    saved = checkpoint(folder)
    assert saved["epoch"] * UPDATES + saved["step"] == update
    command = shlex.split(err.split("go on with: ")[1])
    assert command[0] == "python"
    assert Path(command[1]).name == f"{script}.py"
    status, _, err = Child(script, *command[2:]).finish()
    assert status == 0, err
    assert_same_run(folder, whole(script)[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_the_guide_reads_has_it_read_again_and_end_with_the_same_bytes(whole, out, number):
    status, said, err = Child("infogan", *flags_of("infogan", out), harm=SignalWhileReading(number, 4)).finish()
    assert status == (-number if number == signal.SIGKILL else 130), said + err
    assert err.count("go on with: ") == err.count("\n") == (number != signal.SIGKILL)
    folder = run_folder("infogan", out)
    assert (checkpoint(folder)["guide_c1"] == UNREAD).all()
    status, said, err = Child("infogan", *go_on(folder)).finish()
    assert status == 0, said + err
    assert_same_run(folder, whole("infogan")[0])


@EACH_AT_LENGTH
def test_sigterm_while_any_file_is_written_loses_nothing(whole, out, script):
    """Before training it ends the run at once, within training after the epoch; the files of the end are made anew."""
    expected, _ = whole(script)
    for n in range(1, 100, STRIDE[script]):
        place = out.parent / f"file {n}" / "outputs"
        status, said, err = Child(script, *flags_of(script, place), harm=HarmFile("signal", n)).finish()
        if status == 0:
            break  # there are fewer than n files
        assert status == 130, err
        folder = run_folder(script, place)
        if (folder / "config.json").exists():
            assert "go on with: " in err
            status, _, err = Child(script, *go_on(folder)).finish()
            assert status == 0, err
            assert_same_run(folder, expected)
        else:
            assert "epoch" not in said.replace("epochs", "")  # nothing was trained yet
        shutil.rmtree(place.parent)
    assert n > 10


@EACH_AT_LENGTH
def test_kill_9_at_twenty_moments_costs_at_most_the_epoch_under_way(whole, out, script):
    """Ten at random times, ten with a file half-written: a checkpoint, a picture, whichever it is."""
    expected, seconds = whole(script)
    chance = random.Random(script)
    place, kills, killed_in = out, 0, set()
    while kills < 20:
        folder = run_folder(script, place)
        flags = go_on(folder) if (folder / "config.json").exists() else flags_of(script, place)
        if kills % 2:
            suffix = (".pt", ".png", "")[kills // 2 % 3]
            child = Child(script, *flags, harm=HarmFile("killed", chance.randint(1, 2 if suffix else 12), suffix))
            status, said, err = child.finish()
        else:
            child = Child(script, *flags)
            time.sleep(chance.uniform(0, seconds))
            said = child.kill()
            status, err = child.process.exitcode, ""
        assert status in (0, -signal.SIGKILL), said + err
        kills += status != 0
        for folder in (place / script).glob("run-*"):
            killed_in |= {path.name.split(".")[1] for path in folder.glob(".*.partial")}
            if (folder / "config.json").exists():
                said_done = [int(epoch) for epoch in re.findall(r"^epoch +(\d+)/", said, re.MULTILINE)]
                assert checkpoint(folder)["epoch"] >= max(said_done, default=0)
                break
        else:  # killed before there was anything to go on with, and nothing was trained
            assert "epoch 1/" not in said.replace("  ", " ")
            shutil.rmtree(place, ignore_errors=True)
        if status == 0:
            assert_same_run(run_folder(script, place), expected)
            place = out.parent / f"{out.name} {kills}"
    assert killed_in & {"checkpoint"}
    assert killed_in - {"checkpoint", "config", "metrics", "report"}  # a picture
    folder = run_folder(script, place)
    flags = go_on(folder) if (folder / "config.json").exists() else flags_of(script, place)
    status, said, err = Child(script, *flags).finish()
    assert status == 0, said + err
    assert_same_run(folder, expected)


@EACH
def test_a_run_goes_on_elsewhere_in_another_precision_and_further(whole, out, script, tmp_path):
    """What resuming needs is in the run folder, wherever that is."""
    moved = tmp_path / "moved" / "outputs" / script / "run-001"
    shutil.copytree(whole(script)[0], moved)
    before = rows_without_time(moved)
    status, said, err = Child(script, *go_on(moved, "--precision", "bfloat16", "--epochs", EPOCHS + 1)).finish()
    assert status == 0, err
    assert "precision bfloat16" in said
    assert rows_without_time(moved)[:EPOCHS] == before
    assert len(rows_without_time(moved)) == EPOCHS + 1
    assert json.loads((moved / "config.json").read_text())["precision"] == "bfloat16"


@pytest.mark.parametrize("script", ["gan_mlp", "infogan"])
def test_a_run_of_another_device_goes_on_with_other_random_numbers(whole, script, tmp_path):
    folder = tmp_path / "outputs" / script / "run-001"
    shutil.copytree(whole(script)[0], folder)
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | {"device": "cuda"}))
    content = checkpoint(folder)
    content["random"] = torch.zeros(16, dtype=torch.uint8)  # a card's generator has a state of this size
    torch.save(content, folder / "checkpoint.pt")
    status, _, err = Child(script, *go_on(folder, "--device", "cpu", "--epochs", EPOCHS + 1)).finish()
    assert status == 0, err
    assert len(rows_without_time(folder)) == EPOCHS + 1


# Files -------------------------------------------------------------------------------------------------------------


def test_twenty_runs_started_at_once_get_twenty_folders(whole, out):
    children = [Child("autoencoder", *flags_of("autoencoder", out)) for _ in range(20)]
    assert [child.finish()[0] for child in children] == [0] * 20
    folders = sorted((out / "autoencoder").iterdir())
    assert [folder.name for folder in folders] == [f"run-{number:03d}" for number in range(1, 21)]
    for folder in folders:
        assert_same_run(folder, whole("autoencoder")[0])


@EACH_AT_LENGTH
def test_a_full_disk_is_one_line_and_with_space_the_run_goes_on(whole, out, script):
    """From file number n on no file can grow, be it a checkpoint, a picture or the report."""
    expected, _ = whole(script)
    for n in range(2, 100, STRIDE[script]):
        place = out.parent / f"file {n}" / "outputs"
        status, _, err = Child(script, *flags_of(script, place), harm=HarmFile("full", n)).finish()
        if status == 0:
            break  # there are fewer than n files
        assert status == 1, err
        assert err.count("\n") == 1, err
        assert "File too large" in err
        folder = run_folder(script, place)
        assert not list(folder.glob(".*"))
        if (folder / "config.json").exists():
            assert checkpoint(folder).keys() >= {"epoch", "rows"}
            command = shlex.split(err.split("go on with: ")[1])
            status, _, err = Child(script, *command[2:]).finish()
            assert status == 0, err
            assert_same_run(folder, expected)
        shutil.rmtree(place.parent)
    assert n > 10


FULL = """
import resource, sys
from pathlib import Path
import torch
from common.run import write_tensors
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    write_tensors(Path(sys.argv[1]), {"weight": torch.zeros(1_000_000)})
except OSError as error:
    print(error.errno, error.filename)
"""


def test_a_disk_that_fills_up_within_a_tensor_is_an_error_of_the_file(tmp_path):
    """There torch.save raises an error of its own, not the disk's."""
    path = tmp_path / "checkpoint.pt"
    call = [sys.executable, "-c", FULL, str(path)]
    process = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert process.stdout == f"{errno.EFBIG} {path}\n"
    assert list(tmp_path.iterdir()) == []


# Sick runs ---------------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize(
    ("value", "update", "epoch", "named"),
    [
        (math.nan, 1, 1, r"\w+ is nan"),
        (math.nan, UPDATES + 1, 2, r"\w+ is nan"),
        (math.inf, 2 * UPDATES, 2, r"\w+\.[\w.]+ is not finite"),
    ],
    ids=["a loss of the first epoch", "a loss of the second", "a weight after the last loss of an epoch"],
)
def test_what_is_no_number_stops_the_run_within_the_epoch(whole, out, script, value, update, epoch, named):
    status, said, err = Child(script, *flags_of(script, out), harm=PoisonAt(value, update)).finish()
    folder = run_folder(script, out)
    assert status == 1, said
    assert err.count("\n") == 1
    assert re.search(f"epoch {epoch}: {named}; checkpoint.pt in {re.escape(str(folder))} is the last good one", err), (
        err
    )
    assert checkpoint(folder)["epoch"] == epoch - 1
    assert not (folder / "report.json").exists()
    assert (folder / "epoch_000_c1.png" if script == "infogan" else folder / "epoch_000.png").exists()
    status, _, err = Child(script, *go_on(folder)).finish()  # without what made it sick
    assert status == 0, err
    assert_same_run(folder, whole(script)[0])


def test_a_gan_that_collapses_says_so_in_its_lines_and_its_report(out):
    steps = ["--learning-rate-d", "0.1", "--learning-rate-g", "0.1", "--epochs", "8"]
    status, said, err = Child("gan_mlp", *flags_of("gan_mlp", out), *steps).finish()
    assert status == 0, err
    assert re.search(r"^epoch .* WARNING: collapsed: ", said, re.MULTILINE), said
    assert json.loads((run_folder("gan_mlp", out) / "report.json").read_text())["warning"].startswith("collapsed: ")


def test_what_counts_as_collapsed():
    healthy = {"d_real": 0.7, "d_fake": 0.3, **dict.fromkeys(SHARES, 0.1)}
    won = healthy | {"d_real": 0.995, "d_fake": 0.004}
    blind = healthy | {"d_real": 0.999, "d_fake": 0.999}
    ones = healthy | {"digit_1": 0.6}
    assert collapse([healthy] * 5) is None
    assert collapse([won] * 2) is None
    assert collapse([won, won, healthy]) is None
    assert collapse([ones, healthy, ones]) is None
    assert "stops" in collapse([healthy, won, won, won])
    assert "stops" in collapse([blind] * 3)
    assert "one class" in collapse([ones] * 3)
    without_shares = {name: value for name, value in healthy.items() if name not in SHARES}
    assert collapse([without_shares] * 3) is None


# The same seed -----------------------------------------------------------------------------------------------------


@EACH
def test_a_terminal_changes_no_byte(whole, out, script):
    status, _, err = Child(script, *flags_of(script, out), terminal=True).finish()
    assert status == 0
    assert "updates" in err  # the bar
    assert_same_run(run_folder(script, out), whole(script)[0])

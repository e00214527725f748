"""InfoGAN from the shell: what a run writes, that it learns from its seed alone, stopping, going on, and bad input."""

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image

import common.run
import infogan
from common import BadInput, guide, init
from common.run import ASKED, ROOT, SMOKE_FIELDS, Run, launch, parse
from common.streams import stream, stream_seed
from infogan import Config, Discriminator, Generator
from tests.helpers import CPU, command_line, make_quick, pictures, rows_without_time, same, same_content, tensors

COLUMNS = "epoch,seconds,images_per_second,loss_d,loss_g,d_real,d_fake,info_c1_nats,info_c2_nats,info_c3_nats"
GUIDED = "guide_c1_nats,guide_c2_nats,guide_c3_nats"
UPDATES = 2  # per epoch on the tiny set
EPOCHS = 2


class Shell(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def shell(monkeypatch, capsys):
    """Call the script as the shell does, but within this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*flags: object) -> Shell:
        monkeypatch.setattr(sys, "argv", [str(ROOT / "infogan.py"), *map(str, flags)])
        monkeypatch.setattr(common.run, "_stop_asked", False)
        monkeypatch.setattr(Run, "in_training", False)
        monkeypatch.setattr(Run, "go_on", "")
        capsys.readouterr()
        status = 0
        try:
            launch(infogan.main, Config)
        except SystemExit as leaving:
            status = leaving.code
        return Shell(status, *capsys.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def assert_refused(result: Shell, *words: str) -> None:
    assert result.status == 2
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


def tiny_config(out: Path, **fields: object) -> Config:
    fields = {"dataset": "drawn", "epochs": EPOCHS, "batch_size": 64, "device": "cpu"} | fields
    return Config(out=out, data_dir=out.parent / "data", **fields)


def flags_of(config: Config) -> list[str]:
    names = ("dataset", "epochs", "batch_size", "out", "data_dir", "seed", "device")
    return list(itertools.chain(*((f"--{name.replace('_', '-')}", str(getattr(config, name))) for name in names)))


def fresh_networks(config: Config) -> tuple[Generator, Discriminator]:
    """The networks as `main` has them before the first update."""
    torch.manual_seed(stream_seed(config.seed, "weights"))
    networks = Generator(config.noise_size), Discriminator(config.learn_variance)
    for network in networks:
        init.dcgan_(network)
    return networks


def counters(network: torch.nn.Module) -> set[str]:
    """The names of what BatchNorm counts and an average leaves alone."""
    return {name for name, value in network.state_dict().items() if not value.is_floating_point()}


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)


def assert_same_run(found: Path, expected: Path) -> None:
    """Same weights, optimiser states and random states, same metrics but for the time, same pictures."""
    assert same_content(found, expected)
    assert rows_without_time(found) == rows_without_time(expected)
    found_pictures, expected_pictures = pictures(found), pictures(expected)
    assert set(found_pictures) == set(expected_pictures)
    assert [name for name, content in found_pictures.items() if content != expected_pictures[name]] == []


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny):
    """A run of two epochs that was never stopped."""
    base = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, tiny)
        infogan.main(tiny_config(base / "outputs"))
    yield base / "outputs" / "infogan" / "run-001"
    shutil.rmtree(base)


@pytest.fixture
def finished(reference, out):
    """A copy of the reference run. Links will do: a run replaces its files and never writes into them."""
    folder = out / "infogan" / "run-001"
    shutil.copytree(reference, folder, copy_function=os.link)
    return folder


# The smoke run of the real script -------------------------------------------------------------------------------


def expected_files(epochs: int) -> set[str]:
    grids = {f"epoch_{epoch:03d}_{code}.png" for epoch in range(epochs + 1) for code in ("c1", "c2", "c3")}
    plots = {f"{name}.{kind}" for name in ("codes", "confusion", "curves") for kind in ("png", "pdf")}
    figures = {"reals.png", "training.gif", "explore.html"} | plots
    return grids | figures | {"config.json", "metrics.csv", "report.json", "checkpoint.pt"}


def test_smoke_run_writes_every_file_and_no_other(smoke_run):
    assert smoke_run.process.returncode == 0
    assert {path.name for path in smoke_run.folder.iterdir()} == expected_files(epochs=2)
    assert all(path.stat().st_size > 0 for path in smoke_run.folder.iterdir())


def test_smoke_run_raises_no_alarm(smoke_run):
    assert "WARNING" not in smoke_run.process.stdout
    assert json.loads((smoke_run.folder / "report.json").read_text())["warning"] is None


def test_smoke_run_writes_nothing_elsewhere(smoke_run):
    assert list(smoke_run.cwd.iterdir()) == []
    assert {path.name for path in smoke_run.cwd.parent.iterdir()} == {"elsewhere", "outputs", "data"}
    assert [path.name for path in smoke_run.folder.parent.iterdir()] == ["run-001"]


def test_smoke_run_prints_a_line_per_epoch_and_the_scorecard_and_no_bar(smoke_run):
    lines = smoke_run.process.stdout.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert any(re.fullmatch(r" +accuracy +0\.\d{4}", line) for line in lines)
    assert lines[-1].endswith(str(smoke_run.folder))
    assert "drawn digits, not MNIST" in smoke_run.process.stdout
    assert smoke_run.process.stderr == ""


def test_smoke_run_explains_itself(smoke_run):
    stored = json.loads((smoke_run.folder / "config.json").read_text())
    assert set(stored) >= {field.name for field in dataclasses.fields(Config)} - set(ASKED)
    assert (stored["dataset"], stored["epochs"], stored["batch_size"]) == ("drawn", 2, 64)
    assert stored["device"] in ("cpu", "cuda", "mps")
    assert stored["precision"] in ("float32", "bfloat16")
    assert stored["script"] == "infogan"
    assert "--smoke" in shlex.split(stored["command"])
    assert stored["versions"].keys() >= {"python", "torch", "torchvision", "numpy"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", stored["started"])
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert re.fullmatch(r"[0-9a-f]{40}", stored["git_commit"]) if git.returncode == 0 else not stored["git_commit"]


def test_smoke_metrics_have_the_header_and_finite_numbers(smoke_run):
    with (smoke_run.folder / "metrics.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert ",".join(header) == f"{COLUMNS},{GUIDED},accuracy"
    assert [row[0] for row in rows] == ["1", "2"]
    numbers = [dict(zip(header, map(float, row), strict=True)) for row in rows]
    assert all(math.isfinite(value) for row in numbers for value in row.values())
    for row in numbers:
        assert 0 < row["d_fake"] < 1
        assert 0 < row["d_real"] < 1
        assert 0 <= row["accuracy"] <= 1
        assert max(row["info_c1_nats"], row["guide_c1_nats"]) <= math.log(10)
        assert row["seconds"] > 0


def test_smoke_report_is_a_scorecard(smoke_run):
    report = json.loads((smoke_run.folder / "report.json").read_text())
    last = rows_without_time(smoke_run.folder)[-1]
    assert (report["dataset"], report["epochs"]) == ("drawn", 2)
    assert report["accuracy"] == pytest.approx(float(last["accuracy"]))
    assert report["info_c1_nats"] == pytest.approx(float(last["info_c1_nats"]))
    assert report["info_c1_maximum_nats"] == pytest.approx(math.log(10))
    assert 0 <= report["normalised_mutual_information"] <= 1
    assert report["accuracy"] <= report["accuracy_majority_map"] + 0.05
    assert all(0 <= report[f"guide_{name}"] <= 1 for name in ("accuracy", "neighbours_agree"))
    for code in ("c2", "c3"):
        assert re.fullmatch(r"(slant|thickness) \([01]\.\d\d\)", report[code])
        assert all(-1 <= report[f"{code}_{what}_rank_correlation"] <= 1 for what in ("slant", "thickness"))
    assert all(math.isfinite(value) for value in report.values() if isinstance(value, float))


def test_smoke_run_changes_every_parameter_and_buffer(smoke_run):
    content = checkpoint(smoke_run.folder)
    generator, discriminator = fresh_networks(Config())
    for name, network in (("generator", generator), ("averaged", generator), ("discriminator", discriminator)):
        before = tensors(network)
        assert list(content[name]) == list(before)
        same = {key for key, value in before.items() if torch.equal(content[name][key], value)}
        assert same == (counters(network) if name == "averaged" else set())
        assert all(value.isfinite().all() for value in content[name].values())


def test_smoke_pictures_can_be_opened_and_differ_by_epoch_and_code(smoke_run):
    for path in smoke_run.folder.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 200, path.name
    grids = [path.read_bytes() for path in smoke_run.folder.glob("epoch_*.png")]
    assert len(set(grids)) == len(grids) == 9
    with Image.open(smoke_run.folder / "training.gif") as animation:
        assert animation.n_frames == 3


def test_the_same_seed_gives_the_same_bytes_in_another_process_and_folder(smoke_run, monkeypatch, out):
    infogan.main(Config(smoke=True, dataset="drawn", epochs=2, batch_size=64, out=out, data_dir=out.parent / "data"))
    again = out / "infogan" / "run-001"
    assert (again / "checkpoint.pt").read_bytes() == (smoke_run.folder / "checkpoint.pt").read_bytes()
    assert_same_run(again, smoke_run.folder)


# What decides the weights ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_tiny")
def test_the_seed_decides_weights_latents_and_pictures(monkeypatch, reference, out):
    first_weights, first_latents = [], []
    draw, step = infogan.draw_epoch, infogan.discriminator_step

    def watched_draw(run, data, generator, *rest):
        first_weights.append(tensors(generator))
        draw(run, data, generator, *rest)

    def watched_step(discriminator, optimizer, reals, codes, fakes, latent, *rest):
        first_latents.append(latent)
        return step(discriminator, optimizer, reals, codes, fakes, latent, *rest)

    monkeypatch.setattr(infogan, "draw_epoch", watched_draw)
    monkeypatch.setattr(infogan, "discriminator_step", watched_step)
    infogan.main(tiny_config(out, seed=1, epochs=1))

    for seed, equal in ((0, False), (1, True)):
        weight = fresh_networks(Config(seed=seed))[0].dense[0].weight
        assert torch.equal(first_weights[0]["dense.0.weight"], weight) is equal
        latent = infogan.draw_latent(64, 62, stream(seed, "training"))
        assert torch.equal(first_latents[0].noise.cpu(), latent.noise) is equal
    found, others = pictures(out / "infogan" / "run-001"), pictures(reference)
    for name in ("epoch_000_c1.png", "epoch_001_c1.png", "epoch_001_c2.png", "epoch_001_c3.png"):
        assert found[name] != others[name], name


@pytest.mark.usefixtures("on_tiny")
@pytest.mark.parametrize("times", [0, 2], ids=["never", "twice per epoch"])
def test_how_often_pictures_are_drawn_changes_no_weight(reference, out, monkeypatch, times):
    draw = infogan.draw_epoch

    def draw_otherwise(run: Run, *rest: object) -> None:
        for _ in range(times if run.epoch else 1):
            draw(run, *rest)

    monkeypatch.setattr(infogan, "draw_epoch", draw_otherwise)
    infogan.main(tiny_config(out))
    again = out / "infogan" / "run-001"
    assert len(list(again.glob("epoch_*_c1.png"))) == (EPOCHS + 1 if times else 1)
    assert same_content(again, reference)
    assert rows_without_time(again) == rows_without_time(reference)


@pytest.mark.usefixtures("on_tiny")
@pytest.mark.parametrize(
    "fields",
    [
        {"learn_variance": True, "noise_size": 5, "precision": "float32"},
        {"info_weight": 0.0, "continuous_weight": 0.0, "precision": "bfloat16", "batch_size": 50},
        Config.PAPER | {"epochs": 1},
        {"guide_weight": 0.5, "average": 0.9, "decay_from": 0.0},
    ],
    ids=" ".join,
)
def test_other_settings_run_to_the_end_and_load(out, fields):
    report = infogan.main(tiny_config(out, **{"epochs": 1} | fields))
    folder = out / "infogan" / "run-001"
    assert {path.name for path in folder.iterdir()} == expected_files(epochs=1)
    assert json.loads((folder / "report.json").read_text()) == report
    config = infogan.load(folder).config
    assert {name: getattr(config, name) for name in fields} == fields


@pytest.mark.parametrize("guide_weight", [1.0, 0.0], ids=["guided", "alone"])
def test_no_label_reaches_training(out, tiny, on_tiny, monkeypatch, guide_weight):
    """With every label wrong, the same codes, weights, optimisers and latents come out, to the bit."""
    config = tiny_config(out, epochs=1, guide_weight=guide_weight)
    infogan.main(config)
    wrong = {part: (getattr(tiny, part) + 3) % 10 for part in ("train_labels", "test_labels")}
    monkeypatch.setattr(infogan, "load_dataset", lambda *_: dataclasses.replace(tiny, **wrong))
    infogan.main(config)
    right, other = (
        torch.load(out / "infogan" / name / "checkpoint.pt", weights_only=True) for name in ("run-001", "run-002")
    )
    assert not torch.equal(right.pop("digit_of_category"), other.pop("digit_of_category"))  # the labels were read
    for row in (*right["rows"], *other["rows"]):
        del row["accuracy"]
    assert same(right, other)


def test_sheets_have_a_row_per_category_in_the_order_of_the_digits():
    torch.manual_seed(0)
    generator = Generator(62)
    latent = infogan.draw_latent(10, 62, torch.Generator().manual_seed(0))
    digit_of_category = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    plain = infogan.code_sheets(generator, latent, torch.arange(10))
    sorted_by_digit = infogan.code_sheets(generator, latent, digit_of_category)
    assert {code: tuple(sheet.shape) for code, sheet in plain.items()} == {
        "c1": (10, 10, 28, 28),
        "c2": (10, 9, 28, 28),
        "c3": (10, 9, 28, 28),
    }
    for code, sheet in sorted_by_digit.items():
        for category, digit in enumerate(digit_of_category.tolist()):
            torch.testing.assert_close(sheet[digit], plain[code][category], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("code", "column"), [("c2", 0), ("c3", 1)])
def test_sheets_move_one_code_from_minus_2_to_2_and_hold_the_other_at_0(code, column):
    generator = Generator(62).eval()
    latent = infogan.draw_latent(10, 62, torch.Generator().manual_seed(0))
    sheet = infogan.code_sheets(generator, latent, torch.arange(10))[code]
    continuous = torch.zeros(9, 2)
    continuous[:, column] = torch.linspace(-2, 2, 9)
    row = infogan.Latent(latent.noise[:1].expand(9, -1), torch.full((9,), 4), continuous)
    with torch.no_grad():
        torch.testing.assert_close(sheet[4], generator(row.joined()).squeeze(1), rtol=0, atol=1e-5)


# Run folders ----------------------------------------------------------------------------------------------------


def test_run_folders_take_the_next_free_number_and_are_never_shared(out, tiny):
    for name in ("run-002", "run-009", "run-abc", "run-1x"):
        (out / "infogan" / name).mkdir(parents=True)
    (out / "infogan" / "run-010").write_text("a file")
    folders = [Run(tiny_config(out), "infogan", tiny, CPU, "float32").folder for _ in range(3)]
    assert [folder.name for folder in folders] == ["run-011", "run-012", "run-013"]
    assert all(folder.is_dir() for folder in folders)


def test_a_file_in_the_place_of_the_output_folder_is_bad_input(tmp_path, tiny):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BadInput, match="--out"):
        Run(tiny_config(tmp_path / "file"), "infogan", tiny, CPU, "float32")


def test_a_machine_without_git_can_run(monkeypatch, tmp_path, out, tiny):
    monkeypatch.setenv("PATH", str(tmp_path))
    run = Run(tiny_config(out), "infogan", tiny, CPU, "float32")
    run.keep(weight=torch.zeros(1))
    assert json.loads((run.folder / "config.json").read_text())["git_commit"] is None


# Stopping and going on ------------------------------------------------------------------------------------------


def resume_flags(stopped: Shell) -> list[str]:
    """The flags of the command that a stopped run prints."""
    command = shlex.split(stopped.err.split("go on with: ")[1])
    assert command[0] == "python"
    assert command[1].endswith("infogan.py")
    return command[2:]


@pytest.mark.usefixtures("on_tiny")
def test_more_epochs_go_on_to_the_bytes_of_a_longer_run(shell, out):
    """Where step sizes do not fall: otherwise those of a longer run fall later."""
    for epochs in (EPOCHS, EPOCHS - 1):
        assert shell(*flags_of(tiny_config(out, epochs=epochs)), "--decay-from", 1).status == 0
    whole, folder = (out / "infogan" / name for name in ("run-001", "run-002"))
    assert len(rows_without_time(folder)) == EPOCHS - 1
    longer = shell("--resume", folder, "--epochs", EPOCHS)
    assert longer.status == 0, longer.err
    assert_same_run(folder, whole)


@pytest.mark.usefixtures("on_tiny")
def test_resuming_a_finished_run_draws_its_pictures_again(shell, reference, finished):
    lost = [f"{name}.png" for name in ("codes", "confusion", "curves", "reals")]
    lost += ["explore.html", "codes.pdf", "training.gif", "report.json"]
    for name in [*lost, *(f"epoch_{EPOCHS:03d}_{code}.png" for code in ("c1", "c2", "c3"))]:
        (finished / name).unlink()
    result = shell("--resume", finished)
    assert result.status == 0, result.err
    assert {path.name for path in finished.iterdir()} == expected_files(EPOCHS)
    assert_same_run(finished, reference)
    for name in ("report.json", "explore.html"):
        assert (finished / name).read_bytes() == (reference / name).read_bytes()


@pytest.fixture
def undrawn(monkeypatch, on_tiny):
    """Runs draw no picture, and `main` returns their folder."""
    for name in ("draw_reals", "draw_epoch"):
        monkeypatch.setattr(infogan, name, lambda *_: None)
    monkeypatch.setattr(infogan, "report", lambda run, *_: run.folder)


def interrupted_after(calls: int, function):
    count = iter(range(calls))

    def call(*arguments: object):
        if next(count, None) is None:
            raise KeyboardInterrupt
        return function(*arguments)

    return call


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("module", "function", "calls", "known"),
    [(guide, "train_step", 1, False), (guide, "train_step", 8, False), (infogan, "update", 1, True)],
    ids=["in the first beginning", "in the last reading", "in training"],
)
def test_an_interrupted_run_reads_again_unless_it_has_read(monkeypatch, reference, out, module, function, calls, known):
    with monkeypatch.context() as patch:
        patch.setattr(module, function, interrupted_after(calls, getattr(module, function)))
        with pytest.raises(KeyboardInterrupt):
            infogan.main(tiny_config(out))
    folder = out / "infogan" / "run-001"
    unread = checkpoint(folder)["guide_c1"] == guide.UNREAD
    assert unread.any() == unread.all() == (not known)
    if known:
        monkeypatch.setattr(guide, "read", None)
    infogan.main(parse(Config, ["--resume", str(folder)]))
    assert (folder / "checkpoint.pt").read_bytes() == (reference / "checkpoint.pt").read_bytes()
    assert rows_without_time(folder) == rows_without_time(reference)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("fields", [Config.PAPER, {"guide_weight": 0.0, "average": 0.5}, {"info_weight": 0.0}], ids=str)
def test_without_a_guide_nothing_is_read_and_resuming_remembers_it(monkeypatch, out, fields):
    monkeypatch.setattr(guide, "read", None)
    config = tiny_config(out, **fields | {"epochs": 1})
    folder = infogan.main(config)
    content = checkpoint(folder)
    assert not [name for name in (*content, *content["rows"][0]) if "guide" in name]
    again = parse(Config, ["--resume", str(folder)])
    assert {name: getattr(again, name) for name in fields} == {name: getattr(config, name) for name in fields}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("average", [0.0, 0.999])
def test_the_average_is_neither_the_first_weights_nor_the_last_but_without_a_decay(out, average):
    content = checkpoint(infogan.main(tiny_config(out, epochs=1, guide_weight=0.0, average=average)))
    for name, first in tensors(fresh_networks(Config())[0]).items():
        if first.is_floating_point():
            assert not torch.equal(content["averaged"][name], first), name
            assert torch.equal(content["averaged"][name], content["generator"][name]) == (average == 0.0), name


def assert_refused_and_untouched(shell, folder: Path, flags: list, *words: str) -> None:
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir()}
    assert_refused(shell("--resume", folder, *flags), *words)
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir()} == before


@pytest.mark.usefixtures("on_tiny")
@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", 1],
        ["--batch-size", 32],
        ["--learning-rate-d", 1e-4],
        ["--learning-rate-g", 1e-4],
        ["--decay-from", 1],
        ["--beta1", 0.9],
        ["--info-weight", 0],
        ["--continuous-weight", 0.1],
        ["--guide-weight", 0],
        ["--average", 0],
        ["--noise-size", 10],
        ["--learn-variance"],
        ["--paper"],
        ["--smoke"],
        ["--epochs", EPOCHS - 1],
    ],
    ids=lambda flags: flags[0],
)
def test_resuming_with_another_setting_is_refused_by_name(shell, finished, flags):
    assert_refused_and_untouched(shell, finished, flags, flags[0])


@pytest.mark.usefixtures("on_tiny")
@pytest.mark.parametrize("content", [None, b"epoch,seconds\n1\n", b"\xff\xfe"])
def test_metrics_that_are_lost_or_damaged_come_back_from_the_checkpoint(shell, reference, finished, content):
    (finished / "metrics.csv").unlink()
    if content is not None:
        (finished / "metrics.csv").write_bytes(content)
    result = shell("--resume", finished)
    assert (result.status, result.err.count("\n")) == (0, 1)
    assert "metrics.csv" in result.err
    assert rows_without_time(finished) == rows_without_time(reference)


def test_sigterm_stops_the_real_script_with_its_checkpoint_written(tmp_path, out):
    flags = ["--smoke", "--epochs", "5000", "--out", out, "--data-dir", tmp_path / "data"]
    folder = out / "infogan" / "run-001"
    process = subprocess.Popen(
        command_line("infogan.py", *flags), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        while not (folder / "metrics.csv").exists() and process.poll() is None:
            time.sleep(0.1)
        process.terminate()
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert resume_flags(Shell(130, "", err)) == ["--resume", str(folder), "--data-dir", str(tmp_path / "data")]
    assert checkpoint(folder)["epoch"] >= 1
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert infogan.load(folder).generate(2).shape == (2, 1, 28, 28)


# The command line -----------------------------------------------------------------------------------------------


def flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def test_help_explains_every_flag_in_the_groups_of_the_config_within_80_columns(shell):
    result = shell("--help")
    assert result.status == 0
    assert max(map(len, result.out.splitlines())) <= 80
    groups = re.findall(r"^(\w[\w ]+)$", result.out, re.M)
    assert groups[-5:] == ["data", "latents and posterior", "optimisation", "machine", "output"]
    joined = " ".join(result.out.split())
    for field in dataclasses.fields(Config):
        assert re.search(rf"{flag(field.name)} \S.*?[a-z]{{2,}} [a-z0-9]+", joined), field.name
    for said in ("images per update [authors' code] (128)", "(0.0008)", "auto|float32|bfloat16", "(off)"):
        assert said in joined


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("--epoch", "--epochs"),
        ("--smoek", "--smoke"),
        ("--batch_sizes=3", "--batch-size"),
        ("--learning-rate", "--learning-rate-g"),
        ("--no-learn-varianc", "--no-learn-variance"),
    ],
)
def test_the_nearest_flag_is_suggested(shell, wrong, right):
    assert_refused(shell(wrong, "3"), f"meant {right}")


# The console ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_tiny")
def test_the_first_line_says_what_is_trained_on_what_and_how_long(shell, out):
    result = shell(*flags_of(tiny_config(out, epochs=1)))
    first = result.out.splitlines()[0]
    for said in (
        "infogan on drawn digits, not MNIST",
        "epochs 1 to 1 of 2 updates on 128 images",
        "device cpu",
        "seed 0",
    ):
        assert said in first
    assert "\x1b" not in result.out, "colour codes in a pipe"


@pytest.mark.usefixtures("on_tiny")
def test_a_quiet_run_prints_nothing_and_is_the_same_run(shell, reference, out):
    result = shell(*flags_of(tiny_config(out)), "--quiet")
    assert result == Shell(0, "", "")
    assert_same_run(out / "infogan" / "run-001", reference)


@pytest.mark.usefixtures("on_tiny")
def test_a_quiet_run_may_go_on_aloud_and_reverse(shell, finished):
    assert shell("--resume", finished, "--quiet") == Shell(0, "", "")
    assert "accuracy" in shell("--resume", finished).out


@pytest.mark.usefixtures("on_tiny")
def test_a_call_from_python_returns_the_report_and_leaves_signals_and_command_line_alone(out, monkeypatch):
    """As a notebook does it: `sys.argv` is the kernel's, the bar is shown though there is no terminal."""
    monkeypatch.setattr(sys, "argv", ["/usr/lib/ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.setitem(sys.modules, "ipykernel", type(sys)("ipykernel"))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    bar = io.StringIO()
    with contextlib.redirect_stderr(bar):
        report = infogan.main(tiny_config(out, epochs=1))
    folder = out / "infogan" / "run-001"
    assert json.loads((folder / "report.json").read_text()) == report
    assert json.loads((folder / "config.json").read_text())["command"] is None
    assert "2/2" in bar.getvalue()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_flags_become_fields_of_their_type():
    flags = ["--epochs", "7", "--learning-rate-g", "5e-4", "--no-learn-variance", "--out", "x", "--dataset", "kmnist"]
    config = parse(Config, flags)
    assert config == Config(epochs=7, learning_rate_g=5e-4, out=Path("x"), dataset="kmnist")
    assert isinstance(config.out, Path)


def test_no_flags_are_the_defaults_and_paths_belong_to_the_repository():
    assert parse(Config, []) == Config()
    assert (Config().out, Config().data_dir) == (ROOT / "outputs", ROOT / "data")


def test_a_flag_beside_smoke_still_counts():
    smoke = parse(Config, ["--smoke"])
    assert smoke == Config(smoke=True, epochs=2, batch_size=64, dataset="drawn")
    assert parse(Config, ["--smoke", "--epochs", "5", "--seed", "3"]) == dataclasses.replace(smoke, epochs=5, seed=3)


PRESET = Config(**Config.PAPER)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--paper"], PRESET),
        (["--paper", "--epochs", "5", "--seed", "3"], dataclasses.replace(PRESET, epochs=5, seed=3)),
        (["--average", "0.9", "--paper"], dataclasses.replace(PRESET, average=0.9)),
        (["--paper", "--smoke"], dataclasses.replace(PRESET, smoke=True, epochs=2, batch_size=64, dataset="drawn")),
        (["--smoke", "--epochs", "4", "--paper"], dataclasses.replace(PRESET, **SMOKE_FIELDS | {"epochs": 4})),
        (["--no-paper"], Config()),
    ],
    ids=lambda flags: " ".join(flags) if isinstance(flags, list) else "",
)
def test_a_flag_beside_paper_still_counts_in_any_order_and_smoke_makes_it_short(flags, expected):
    assert parse(Config, flags) == expected


def test_paper_is_the_recipe_of_the_paper():
    assert (PRESET.learning_rate_d, PRESET.learning_rate_g, PRESET.decay_from) == (2e-4, 1e-3, 1.0)
    assert (PRESET.guided, PRESET.average) == (False, 0.0)
    assert Config().guided
    assert not Config(info_weight=0.0).guided


def test_importing_the_script_does_no_work(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import infogan; print('matplotlib' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (process.stdout, process.stderr) == ("False\n", "")
    assert list(tmp_path.iterdir()) == []

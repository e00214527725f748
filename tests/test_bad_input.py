"""What a user may get wrong, for all three scripts: one clear line, exit status 2, and nothing is written."""

import gzip
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import autoencoder
import common.data
import common.run
import gan_mlp
import infogan
from common.run import ROOT, Run, launch
from tests.children import OWN, SMALL, TINY
from tests.helpers import make_quick

SCRIPTS = {"autoencoder": autoencoder, "gan_mlp": gan_mlp, "infogan": infogan}

# flags after `--smoke`, and what the line must name; for all three scripts
FLAGS = [
    (["--epochs", "0"], "--epochs"),
    (["--epochs", "-3"], "--epochs"),
    (["--epochs", "2.5"], "--epochs"),
    (["--epochs", "many"], "--epochs"),
    (["--epochs", "nan"], "--epochs"),
    (["--epochs", "1000000000000"], "--epochs"),
    (["--epochs"], "--epochs"),
    (["--batch-size", "0"], "--batch-size"),
    (["--batch-size", "1"], "--batch-size"),
    (["--batch-size", "-64"], "--batch-size"),
    (["--batch-size", "513"], "larger than the training set of 512 images"),
    (["--batch-size", "73"], "BatchNorm"),  # 512 = 7 * 73 + 1
    (["--batch-size", "1" + "0" * 30], "--batch-size"),
    (["--batch-size", "1" + "0" * 400], "--batch-size"),
    (["--seed", "-1"], "--seed"),
    (["--seed", "4294967296"], "--seed"),
    (["--seed", "1e3"], "--seed"),
    (["--dataset", "imagenet"], "imagenet"),
    (["--dataset", ""], "--dataset"),
    (["--device", "tpu"], "tpu"),
    (["--precision", "float16"], "float16"),
    (["--nonsense", "1"], "--nonsense"),
    (["nonsense"], "nonsense"),
    (["--smoke", "yes"], "yes"),
    (["--resume", "{tmp}/none"], "{tmp}/none"),
    (["--resume", "{tmp}"], "{tmp}/config.json"),
    (["--out", "/proc/version"], "/proc/version"),
    (["--out", "/proc/nowhere"], "/proc/nowhere"),
]
OWN_FLAGS = {
    "autoencoder": [
        *(["--hidden", value] for value in ("0", "-1", "1.5", "784", "1000000", "nan")),
        *(["--learning-rate", value] for value in ("-1", "nan", "inf", "1.5", "fast")),
        *(["--learning-rate-sgd", value] for value in ("-1", "nan", "-inf")),
        ["--hidden-bias", "nan"],
        ["--optimizer", "rmsprop"],
    ],
    "gan_mlp": [
        *([name, value] for name in ("--learning-rate-d", "--learning-rate-g") for value in ("-1", "nan", "inf", "2")),
        *([name, value] for name in ("--widths-g", "--widths-d") for value in ("0", "-4", "1000000", "1.5", "wide")),
        ["--widths-g", *["8"] * 9],
        ["--widths-d"],
        ["--noise-size", "0"],
        ["--noise-size", "1000000"],
        ["--leak", "-0.1"],
        ["--leak", "nan"],
        ["--shift", "15"],
        ["--shift", "0.5"],
        ["--beta1", "1"],
        ["--average", "1"],
        ["--decay-from", "1"],
    ],
    "infogan": [
        *([name, value] for name in ("--learning-rate-d", "--learning-rate-g") for value in ("-1", "nan", "inf", "2")),
        *([f"--{name}-weight", value] for name in ("info", "continuous", "guide") for value in ("-1", "nan", "inf")),
        *(["--decay-from", value] for value in ("-0.1", "1.1", "nan")),
        *(["--average", value] for value in ("-0.1", "1", "nan")),
        ["--guide-weight", "-1", "--paper"],
        ["--noise-size", "0"],
        ["--noise-size", "1000000"],
        ["--beta1", "1"],
        ["--beta1", "high"],
    ],
}  # fmt: skip
TABLE = [(script, flags, named) for script in SCRIPTS for flags, named in FLAGS]
TABLE += [(script, flags, flags[0]) for script, more in OWN_FLAGS.items() for flags in more]


@pytest.fixture
def shell(monkeypatch, capsys):
    """Call a script as the shell does, but within this process: (status, stderr)."""
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def call(script: str, *flags: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [str(ROOT / f"{script}.py"), *map(str, flags)])
        monkeypatch.setattr(Run, "go_on", "")
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            launch(SCRIPTS[script].main, SCRIPTS[script].Config)
        return leaving.value.code, capsys.readouterr().err

    return call


def assert_refused(said: tuple[int, str], script: str, *named: str) -> None:
    status, line = said
    assert status == 2, line
    assert line.startswith(f"{script}.py: ")
    assert line.count("\n") == 1, line
    assert len(line) < 600
    for words in named:
        assert words in line


def listing(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(("script", "flags", "named"), TABLE, ids=[f"{row[0]} {' '.join(row[1])}" for row in TABLE])
def test_a_bad_flag_is_one_line_that_names_it_and_nothing_is_written(shell, tmp_path, script, flags, named):
    flags = [flag.replace("{tmp}", str(tmp_path)) for flag in flags]
    given = ["--smoke", "--out", tmp_path / "out", "--data-dir", tmp_path / "data", *flags]
    assert_refused(shell(script, *given), script, named.replace("{tmp}", str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none_is_refused(shell, tmp_path, script):
    assert_refused(shell(script, "--smoke", "--out", tmp_path / "out", "--device", "cuda"), script, "--device cuda")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_output_folder_without_rights_is_refused(shell, tmp_path, script, monkeypatch):
    make = common.run.next_folder

    def make_as_nobody(parent: Path) -> Path:  # root may write anywhere
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            return make(parent)
        finally:
            if user == 0:
                os.seteuid(0)

    monkeypatch.setattr(common.run, "next_folder", make_as_nobody)
    monkeypatch.setattr(SCRIPTS[script], "load_dataset", lambda *_: TINY)
    (tmp_path / "out").mkdir(mode=0o555)
    assert_refused(shell(script, "--smoke", "--out", tmp_path / "out"), script, "--out", "ermission denied")
    assert list((tmp_path / "out").iterdir()) == []


# The data folder ---------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


IMAGES, LABELS = np.zeros((20, 28, 28), np.uint8), np.zeros(20, np.uint8)
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def write(raw: Path, name: str, content: bytes) -> None:
    (raw / name).write_bytes(content)


def swapped(raw: Path) -> None:
    images, labels = (raw / name for name in FILES[:2])
    images.rename(raw / "third")
    labels.rename(images)
    (raw / "third").rename(labels)


def linked_to_itself(raw: Path) -> None:
    (raw / FILES[0]).unlink()
    (raw / FILES[0]).symlink_to(FILES[0])


# What happens to a whole set of four small files, and what the line must name
DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbage": (lambda raw: write(raw, FILES[0], b"\x93garbage" * 50), FILES[0]),
    "empty": (lambda raw: write(raw, FILES[1], b""), FILES[1]),
    "wrong magic": (lambda raw: write(raw, FILES[0], b"\0\0\x0b\x03" + idx(IMAGES)[4:]), FILES[0]),
    "truncated": (lambda raw: write(raw, FILES[2], idx(IMAGES)[:-1]), FILES[2]),
    "wrong count": (lambda raw: write(raw, FILES[3], b"\0\0\x08\x01\xff\xff\xff\xff" + bytes(20)), FILES[3]),
    "labels of another length": (lambda raw: write(raw, FILES[1], idx(LABELS[:-1])), "train"),
    "labels above 9": (lambda raw: write(raw, FILES[1], idx(LABELS + 10)), "train"),
    "images of another size": (lambda raw: write(raw, FILES[0], idx(IMAGES[:, :27])), "train"),
    "images and labels swapped": (swapped, FILES[0]),
    "a truncated gz": (lambda raw: write(raw, f"{FILES[0]}.gz", gzip.compress(idx(IMAGES))[:-9]), f"{FILES[0]}.gz"),
    "another gz": (lambda raw: write(raw, f"{FILES[1]}.gz", gzip.compress(idx(LABELS))), f"{FILES[1]}.gz"),
    "one file missing": (lambda raw: (raw / FILES[3]).unlink(), FILES[3]),
    "a folder in a file's place": (lambda raw: ((raw / FILES[0]).unlink(), (raw / FILES[0]).mkdir()), FILES[0]),
    "a file in the folder's place": (lambda raw: (shutil.rmtree(raw), raw.write_text("")), "raw"),
    "a link to itself": (linked_to_itself, FILES[0]),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("what", DATA)
def test_a_data_folder_that_cannot_be_used_is_named_and_nothing_is_written(shell, tmp_path, script, what):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in zip(FILES, (IMAGES, LABELS) * 2, strict=True):
        write(raw, name, idx(array))
    harm, named = DATA[what]
    harm(raw)
    before = sorted(tmp_path.rglob("*"))
    for dataset in ("mnist", "auto"):
        said = shell(script, "--data-dir", tmp_path / "data", "--out", tmp_path / "out", "--dataset", dataset)
        assert_refused(said, script, str(tmp_path / "data"), named)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_set_that_is_not_there_and_cannot_be_fetched_is_named(shell, tmp_path, script, monkeypatch):
    monkeypatch.setattr(common.data, "_any_answer", lambda mirrors: False)
    said = shell(script, "--data-dir", tmp_path / "data", "--out", tmp_path / "out", "--dataset", "kmnist")
    assert_refused(said, script, str(tmp_path / "data" / "KMNIST" / "raw"))
    assert list(tmp_path.iterdir()) == []


# The run folder to go on with --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A function that gives a folder of a finished small run of a script, and one of a wider network."""
    done, base = {}, tmp_path_factory.mktemp("finished")

    def of(script: str, *more: str) -> Path:
        if (script, more) not in done:
            module = SCRIPTS[script]
            flags = [*SMALL, *OWN[script], *more, "--epochs", "1", "--data-dir", str(base / "data")]
            with pytest.MonkeyPatch.context() as patch:
                make_quick(patch, TINY)
                patch.setattr(module, "load_dataset", lambda *_: TINY)
                out = base / str(len(done))
                module.main(common.run.parse(module.Config, [*flags, "--out", str(out)]))
            done[script, more] = out / script / "run-001"
        return done[script, more]

    yield of
    shutil.rmtree(base)


class Accomplice:
    """Unpickling it would make a folder."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


OTHER = {"autoencoder": ["--hidden", "21"], "gan_mlp": ["--widths-g", "33", "48"], "infogan": ["--noise-size", "6"]}
CHOICE = {"autoencoder": "optimizer", "gan_mlp": "precision", "infogan": "precision"}


def config(folder: Path, **changes: object) -> None:
    stored = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({name: value for name, value in stored.items() if value is not ...}))


def content(folder: Path, change: Callable[[dict], dict]) -> None:
    path = folder / "checkpoint.pt"
    torch.save(change(torch.load(path, weights_only=True)), path)


def every_tensor(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict], dict]:
    """A change of a checkpoint's networks, tensor by tensor."""
    return lambda saved: {
        name: {key: change(value) for key, value in part.items()}
        if isinstance(part, dict) and any("weight" in key for key in part)
        else part
        for name, part in saved.items()
    }


def with_moments(change: Callable[[dict], dict]) -> Callable[[dict], dict]:
    """A change of what the optimiser remembers of its first weight."""

    def changed(saved: dict) -> dict:
        name = next(name for name in saved if name.startswith("optimizer"))
        return saved | {name: saved[name] | {"state": saved[name]["state"] | {0: change(saved[name]["state"][0])}}}

    return changed


# What happens to a copy of a finished run, and what the line must name
RESUMED: dict[str, tuple[Callable[[Path, str, Callable], object], str]] = {
    "no config.json": (lambda run, *_: (run / "config.json").unlink(), "config.json"),
    "broken JSON": (lambda run, *_: (run / "config.json").write_text('{"epochs": 3'), "config.json"),
    "deep JSON": (lambda run, *_: (run / "config.json").write_text("[" * 100_000), "config.json"),
    "another script's": (lambda run, *_: config(run, script="dcgan"), "dcgan"),
    "a field that is gone": (lambda run, *_: config(run, dropout_d=0.3), "dropout_d"),
    "a field missing": (lambda run, *_: config(run, seed=...), "seed"),
    "a field of another type": (lambda run, *_: config(run, seed="0"), "seed"),
    "a field out of range": (lambda run, *_: config(run, batch_size=0), "batch-size"),
    "a field that is NaN": (
        lambda run, script, _: config(run, **{f"learning_rate{'' if script == 'autoencoder' else '_g'}": float("nan")}),
        "config.json",
    ),
    "an unknown choice": (lambda run, script, _: config(run, **{CHOICE[script]: "best"}), "best"),
    "no checkpoint": (lambda run, *_: (run / "checkpoint.pt").unlink(), "checkpoint.pt"),
    "an empty checkpoint": (lambda run, *_: (run / "checkpoint.pt").write_bytes(b""), "checkpoint.pt"),
    "a truncated checkpoint": (lambda run, *_: os.truncate(run / "checkpoint.pt", 5000), "checkpoint.pt"),
    "a foreign checkpoint": (lambda run, *_: torch.save(torch.zeros(3), run / "checkpoint.pt"), "checkpoint.pt"),
    "a checkpoint of another width": (
        lambda run, script, finished: shutil.copy(finished(script, *OTHER[script]) / "checkpoint.pt", run),
        "checkpoint.pt",
    ),
    "code": (
        lambda run, *_: (run / "checkpoint.pt").write_bytes(pickle.dumps(Accomplice(str(run / "trace")), protocol=2)),
        "checkpoint.pt",
    ),
    "code in an archive": (
        lambda run, *_: torch.save({"epoch": Accomplice(str(run / "trace"))}, run / "checkpoint.pt"),
        "checkpoint.pt",
    ),
    "weights of another type": (
        lambda run, *_: content(run, every_tensor(lambda value: value.double())),
        "checkpoint.pt",
    ),
    "weights that are no numbers": (
        lambda run, *_: content(run, every_tensor(lambda value: value / 0)),
        "checkpoint.pt",
    ),
    "sparse weights": (lambda run, *_: content(run, every_tensor(lambda value: value.to_sparse())), "checkpoint.pt"),
    "no networks": (lambda run, *_: content(run, lambda saved: {"epoch": 1}), "checkpoint.pt"),
    "an optimiser's state of another shape": (
        lambda run, *_: content(run, with_moments(lambda state: state | {"exp_avg": torch.zeros(3)})),
        "checkpoint.pt",
    ),
    "an optimiser's state that lacks a part": (
        lambda run, *_: content(run, with_moments(lambda state: {"step": state["step"]})),
        "checkpoint.pt",
    ),
    "an epoch below 0": (lambda run, *_: content(run, lambda saved: saved | {"epoch": -1}), "checkpoint.pt"),
    "a step beyond the epoch": (lambda run, *_: content(run, lambda saved: saved | {"step": 99}), "checkpoint.pt"),
    "no random state": (
        lambda run, *_: content(run, lambda saved: saved | {"torch_random_state": None}),
        "checkpoint.pt",
    ),
    "a random state of another size": (
        lambda run, *_: content(run, lambda saved: saved | {"torch_random_state": torch.zeros(9, dtype=torch.uint8)}),
        "checkpoint.pt",
    ),
    "an epoch that is text": (lambda run, *_: content(run, lambda saved: saved | {"epoch": "one"}), "checkpoint.pt"),
    "an endless epoch": (lambda run, *_: content(run, lambda saved: saved | {"epoch": float("inf")}), "checkpoint.pt"),
    "rows of other epochs": (
        lambda run, *_: content(run, lambda saved: saved | {"rows": saved["rows"] * 2}),
        "checkpoint.pt",
    ),
    "rows of text": (lambda run, *_: content(run, lambda saved: saved | {"rows": ["1,2,3"]}), "checkpoint.pt"),
    "sums that are no numbers": (
        lambda run, *_: content(run, lambda saved: saved | {"sums": {"loss": torch.tensor(float("inf"))}}),
        "checkpoint.pt",
    ),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:Sparse")
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("what", RESUMED)
def test_a_run_folder_that_cannot_be_resumed_is_named_and_nothing_is_written(
    shell, monkeypatch, finished, tmp_path, script, what
):
    folder = tmp_path / "run-001"
    shutil.copytree(finished(script), folder)
    harm, named = RESUMED[what]
    harm(folder, script, finished)
    before = listing(tmp_path)
    monkeypatch.setattr(SCRIPTS[script], "load_dataset", lambda *_: TINY)
    assert_refused(shell(script, "--resume", folder, "--data-dir", tmp_path), script, str(folder), named)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("script", SCRIPTS)
def test_other_fields_on_resume_are_refused_by_name(shell, monkeypatch, finished, script):
    monkeypatch.setattr(SCRIPTS[script], "load_dataset", lambda *_: TINY)
    for flags in (["--seed", 1], ["--batch-size", 32], OTHER[script]):
        assert_refused(shell(script, "--resume", finished(script), *flags), script, flags[0], str(finished(script)))


@pytest.mark.parametrize("script", SCRIPTS)
def test_paths_in_a_run_folder_are_not_followed(monkeypatch, finished, tmp_path, script):
    """A stranger's config.json could name any folder as `data_dir` or `out`; only a flag may."""
    folder = tmp_path / "run-001"
    shutil.copytree(finished(script), folder)
    config(folder, data_dir=str(tmp_path / "theirs"), out=str(tmp_path / "theirs"))
    asked = []
    monkeypatch.setattr(SCRIPTS[script], "load_dataset", lambda name, data_dir, smoke: asked.append(data_dir) or TINY)
    module = SCRIPTS[script]
    module.main(common.run.parse(module.Config, ["--resume", str(folder), "--data-dir", str(tmp_path / "mine")]))
    assert asked == [tmp_path / "mine"]
    assert common.run.parse(module.Config, ["--resume", str(folder)]).data_dir == ROOT / "data"
    assert not (tmp_path / "theirs").exists()

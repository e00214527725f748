"""What a user types: flags and fields, what can't be used in one line, every end's exit status, what a model is given;
and that no environment changes a run. Last, which file may import which."""

import ast
import contextlib
import copy
import dataclasses
import errno
import importlib
import inspect
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import autoencoder
import gan_mlp
import infogan
from common import BadInput, RunFailed, Stopped
from common.run.cli import parse
from common.run.config import ACTIONS, PROVENANCE, ROOT, Settings, flag, read_config
from common.run.run import Run, as_stored, batch_ends, epochs_of
from tests.children import SCRIPTS, assert_refused, shell
from tests.helpers import command_line

CONFIGS = {script: module.Config for script, module in SCRIPTS.items()}
NAN, INF = math.nan, math.inf


# Fields --------------------------------------------------------------------------------------------------------------

# What no field of a type takes, and what some fields don't
BY_TYPE = {
    int: (None, 2.5, "many", True, NAN),
    float: (None, "fast", True, NAN, INF),
    bool: (None, 1),
    str: (None, 3),
    tuple[int, ...]: (None, (), 8, (8, 8.5), (8, 8193)),
    Path: (None, "~nobody at all/x"),
}
BY_NAME = {
    **{"epochs": (0, 100_001), "batch_size": (1, 1_000_001), "seed": (-1, 2**32), "shift": (-1, 15)},
    **{"noise_size": (0, 4097), "hidden": (0, 784), "hidden_bias": (-101, 101), "decay_from": (-0.1, 1.1)},
    **dict.fromkeys(("learning_rate", "learning_rate_sgd", "learning_rate_d", "learning_rate_g"), (-1, 2)),
    **dict.fromkeys(("info_weight", "continuous_weight", "guide_weight", "gradient_penalty"), (-1, 1001)),
    **{"leak": (-0.1, 1.1), "beta1": (1,), "average": (-0.1, 1.1), "device": ("tpu",), "optimizer": ("rmsprop",)},
}
FIELDS = {field.name: (script, field) for script in CONFIGS for field in dataclasses.fields(CONFIGS[script])}


@pytest.mark.parametrize(("script", "field"), FIELDS.values(), ids=FIELDS)
def test_a_field_of_another_type_or_out_of_its_limits_is_named(script, field):
    for value in (*BY_TYPE.get(field.type, ()), *BY_NAME.get(field.name, ())):
        with pytest.raises(BadInput, match=f"^{flag(field.name)}(: .* is no path: .*| must be .{{,150}})$"):
            CONFIGS[script](**{field.name: value})


MINE = '''"""A script of somebody's own."""
from dataclasses import dataclass
from typing import Optional
from common.run.config import Settings

@dataclass(frozen=True)
class Config(Settings):
    # my own
    epochs: int = 5
    batch_size: int = 9 # one space before the comment, 100 % mine
    average: float = 0
    rates: tuple[float, ...] = (1, 2)  # more than one
    share: Optional[float] = None

    SCRIPT = "mine"
    LIMITS = {"epochs": (1, 7), "rates": (0, 3)}
    PRESETS = {"quick": {"epochs": 1, "batch_size": 3}}

    quick: bool = False
'''


def test_a_config_as_users_edit_it_adds_limits_and_presets_to_those_inherited(tmp_path, monkeypatch, capsys):
    """Without comments, and with a default of another spelling than its type, which decides."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("mine").Config
    config = parse(mine, ["--average", "0.5", "--epochs", "6", "--rates", "1", "2.5", "--share", "0.25"])
    assert (config.share, config.average, config.epochs, config.rates) == (0.25, 0.5, 6, (1.0, 2.5))
    plain = mine(epochs=np.int64(3), average=np.float32(0.5), rates=["1", 2])
    assert [*map(type, (plain.epochs, plain.average, *plain.rates, mine().average))] == [int, *[float] * 4]
    for name, value in (("epochs", 8), ("rates", (4,)), ("average", 2), ("batch_size", 1)):
        with pytest.raises(BadInput, match=f"^{flag(name)} must be at "):
            mine(**{name: value})
    assert (mine.make(quick=True).epochs, mine.make(quick=True, smoke=True).batch_size) == (1, 64)
    assert (Settings.LIMITS["epochs"], [*Settings.PRESETS]) == ((1, 100_000), ["smoke"])
    with pytest.raises(SystemExit):
        parse(mine, ["--help"])
    said = " ".join(capsys.readouterr().out.split())
    shown = ["A script of somebody's own.", "--epochs N (5)", "N one space before the comment, 100 % mine (9)"]
    shown += ["--average X (0)", "more than one (1, 2)"]
    assert [text for text in shown if text not in said] == []
    assert re.search(r"my own: [^:]*--average", said)


def test_every_batch_has_two_images_or_more_and_a_small_set_gets_smaller_ones_and_more_epochs():
    """One image left over joins the batch before it. Only a batch size or length that was not chosen is changed: to a
    tenth of the set, at least 16; to at most 20 times as many epochs, with 1,000 updates at least."""
    for size, images, ends in ((50, 152, [50, 100, 150]), (50, 151, [50, 100]), (127, 128, []), (128, 40, [16, 32])):
        assert batch_ends(autoencoder.Config(batch_size=size), images) == ends
    for epochs, images, expected in ((30, 60_000, 30), (30, 8_000, 75), (30, 100, 600), (31, 100, 31)):
        assert epochs_of(autoencoder.Config(epochs=epochs), images) == expected
    assert epochs_of(infogan.Config(), 257) == 91


def test_a_chosen_batch_size_above_the_set_is_refused_before_a_download(tmp_path, out):
    config = autoencoder.Config(batch_size=60_001, data_dir=tmp_path, out=out, dataset="mnist")
    with pytest.raises(BadInput, match="--batch-size 60001 is larger than the training set of 60000 images"):
        Run(config)


def store(folder: Path, config: Settings, **changes: object) -> Path:
    """Write the config.json of a run, with changes; `...` removes a field."""
    content = {name: value for name, value in (as_stored(config) | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(content, default=str), encoding="utf-8")
    return folder


def test_what_is_stored_is_every_field_with_paths_in_full_and_where_the_run_comes_from(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "my copy.py"), "--out", "my outputs"])
    config = gan_mlp.Config(seed=7, out="my outputs", data_dir="~/my data", quiet=True)
    stored = as_stored(config)
    names = {field.name for field in dataclasses.fields(config)}
    assert stored.keys() == names - {*ACTIONS} | {*PROVENANCE} - {"images"}
    assert (stored["seed"], stored["script"], shlex.split(stored["command"])) == (7, "gan_mlp", sys.argv)
    assert stored["versions"].keys() == {"python", "torch", "torchvision", "numpy", "scipy", "matplotlib"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", stored["started"])
    again = read_config(store(tmp_path, config), type(config))
    assert again == dataclasses.replace(config, out=tmp_path / "my outputs", data_dir=tmp_path / "my data", quiet=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without git
    monkeypatch.setattr(sys, "argv", ["/usr/lib/ipykernel_launcher.py", "-f", "kernel.json"])  # and a notebook
    assert [as_stored(config)[name] for name in ("git_commit", "command")] == [None, None]


UNFIT = [
    ({"script": "dcgan"}, "is a run of dcgan, not of gan_mlp"),
    ({"dropout_d": 0.3, "seed": ...}, "unknown .'dropout_d'., missing .'seed'"),
    ({"seed": None}, "--seed must be of type int, not None"),
]


@pytest.mark.parametrize(("changes", "line"), UNFIT)
def test_a_config_that_does_not_fit_is_named_with_what_is_wrong(tmp_path, changes, line):
    with pytest.raises(BadInput, match=f"^{re.escape(str(tmp_path / 'config.json'))}: .*{line}"):
        read_config(store(tmp_path, gan_mlp.Config(), **changes), gan_mlp.Config)


# Flags ---------------------------------------------------------------------------------------------------------------

SMOKE = {"smoke": True, "epochs": 2, "batch_size": 64, "dataset": "drawn"}
PAPER = {"paper": True, "epochs": 12, "learning_rate_d": 2e-4, "decay_from": 1.0, "guide_weight": 0.0, "average": 0.0}
PAPER |= {"gradient_penalty": 0.0, "info_weight": 1.0, "noise": "uniform"}
PARSED = [
    ("infogan", "--learning-rate-g 5e-4 --seed=3 --out x/y", {"learning_rate_g": 5e-4, "seed": 3, "out": Path("x/y")}),
    ("infogan", "--learn-variance --no-learn-variance --no-paper --quiet", {"quiet": True}),
    ("autoencoder", "--epochs 5 --smoke", SMOKE | {"epochs": 5}),
    ("infogan", "--average 0.9 --paper", PAPER | {"average": 0.9}),  # a flag beside a preset counts, in any order
    ("infogan", "--smoke --paper", PAPER | SMOKE),  # and smoke makes the paper's run short
    ("gan_mlp", "--widths-g 32 48 --no-batchnorm-g", {"widths_g": (32, 48), "batchnorm_g": False}),
]


@pytest.mark.parametrize(("script", "flags", "fields"), PARSED)
def test_flags_become_fields(script, flags, fields):
    assert parse(CONFIGS[script], flags.split()) == CONFIGS[script](**fields)


# Flags, and what the line must name
BAD = [
    ("autoencoder", "--epochs many", "--epochs"),
    ("autoencoder", "--epochs ", "--epochs"),
    ("autoencoder", "--learning-rate-sgd -inf", "--learning-rate-sgd"),
    ("autoencoder", "--device tpu", "--device"),
    ("autoencoder", "--smoke=yes", "--smoke"),
    ("autoencoder", "nonsense", "there is no flag nonsense; --help lists all"),
    ("autoencoder", "--batch_sizes=3", "there is no flag --batch_sizes; perhaps you meant --batch-size"),
    ("autoencoder", "--resume {tmp}/none", "{tmp}/none: there is no such run folder"),
    ("autoencoder", "--resume {tmp}", "{tmp}/config.json: cannot be read"),
    ("autoencoder", "--out /proc/nowhere", "--out: /proc/nowhere"),
]


@pytest.mark.parametrize(("script", "flags", "named"), BAD)
def test_a_bad_flag_is_one_line_that_names_it_and_nothing_is_written(tmp_path, script, flags, named):
    flags = f"--smoke --batch-size 16 --data-dir {{tmp}}/data --out {{tmp}}/out {flags}".replace("{tmp}", str(tmp_path))
    assert_refused(shell(script, *flags.split()), script, named.replace("{tmp}", str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_every_flag_in_the_groups_of_the_config_within_80_columns(monkeypatch, script):
    monkeypatch.setenv("COLUMNS", "80")
    said = shell(script, "--help")
    assert (said.status, said.err) == (0, "")
    assert max(map(len, said.out.splitlines())) <= 80
    groups = re.findall(r"^(\w[\w ]+):$", said.out, re.M)
    assert {"options", "optimisation", "data", "machine", "output"} < {*groups}
    assert len({*groups}) == len(groups) == 6  # and the networks'
    source = "".join(map(inspect.getsource, (CONFIGS[script], Settings)))
    for field in dataclasses.fields(CONFIGS[script]):
        comment = re.search(rf"^    {field.name}: .+?  # (.+)$", source, re.M)[1]
        assert "".join(comment.split()) in "".join(said.out.partition(flag(field.name))[2].split()), field.name
    shown = ["{auto,cpu,cuda,mps}", "(off)", "] (128)"]
    shown += {"infogan": ["(0.0008)"], "gan_mlp": ["(128, 256, 512)", "(on)"], "autoencoder": ["{adam,sgd}"]}[script]
    assert [text for text in shown if text not in " ".join(said.out.split())] == []


def test_the_commit_is_that_of_this_repository_alone_and_says_whether_files_differ_from_it(monkeypatch, tmp_path):
    def git(*words: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=e")
        return subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    (tmp_path / "copy").mkdir()
    (tmp_path / "own.py").write_text("x = 1")
    for words in ("init -q", "add .", "commit -qm first"):
        git(*words.split())
    head = git("rev-parse", "HEAD").strip()
    for root, change, expected in ((".", "", head), ("copy", "", None), (".", "x = 2", f"{head}-dirty")):
        monkeypatch.setattr("common.run.run.ROOT", (tmp_path / root).resolve())
        (tmp_path / "own.py").write_text(change or "x = 1")
        assert as_stored(autoencoder.Config())["git_commit"] == expected


# Ends and environments -----------------------------------------------------------------------------------------------

MEMORY = "out of memory: a smaller --batch-size, or smaller networks, need less"
ENDS = [
    (None, 0, ""),
    (BadInput("--x: no"), 2, "--x: no"),
    (RunFailed("loss is nan"), 1, "loss is nan"),
    (Stopped("stopped in epoch 3"), 130, "stopped in epoch 3"),
    (KeyboardInterrupt(), 130, "stopped"),
    (MemoryError(), 1, MEMORY),
    (torch.OutOfMemoryError("Tried to allocate\nmany lines"), 1, MEMORY),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 268435456 bytes."), 1, MEMORY),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None, ""),  # a fault of the program shows where it is
    (OSError(errno.ENOSPC, "No space left on device", "/x/y.pt"), 1, "/x/y.pt: No space left on device"),
    (OSError("broken"), 1, "the run: broken"),
]


@pytest.mark.parametrize(("error", "status", "line"), ENDS, ids=[repr(row[0])[:30] for row in ENDS])
def test_every_end_has_its_exit_status_and_its_line(monkeypatch, error, status, line):
    seen = []

    def main(config) -> None:
        seen.extend((config.seed, *map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))))
        if error:
            error.add_note("continue with: this")
            raise error

    monkeypatch.setattr(SCRIPTS["gan_mlp"], "main", main)
    ignored = (signal.SIGINT, signal.SIGHUP)  # as for a background job, and by nohup, whose wish is respected
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    with contextlib.nullcontext() if status is not None else pytest.raises(type(error)):
        said = f"gan_mlp.py: {line}; continue with: this\n" if status else ""
        assert shell("gan_mlp", "--seed", 5) == (status, "", said)
    for number, handler in zip(ignored, before, strict=True):
        signal.signal(number, handler)
    assert seen == [5, signal.default_int_handler, signal.default_int_handler, signal.SIG_IGN]


def test_importing_the_scripts_does_no_work(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import autoencoder, gan_mlp, infogan"
    call = [sys.executable, "-c", code + "; print({'matplotlib', 'scipy', 'torchvision'} & {*sys.modules})"]
    process = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (process.stdout, process.stderr) == ("set()\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_run_does_not_depend_on_the_console_or_on_the_users_settings(tmp_path):
    """ASCII only, within a profiler, or no console at all; a plotting backend that is not there."""
    out = tmp_path / "schöne Läufe"
    strange = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "nonsense", "HOME": str(tmp_path / "none"), "LC_ALL": "C"}
    command = shlex.join(command_line("autoencoder.py", "--smoke", "--epochs", 1, "--out", out))
    for call in (command.replace(" ", " -m cProfile ", 1), f"{command} >&- 2>&-"):
        process = subprocess.run(
            call, shell=True, env=os.environ | strange, cwd=tmp_path, capture_output=True, timeout=300, check=False
        )
        assert process.returncode == 0, process.stderr
        assert (b"sch\\xf6ne L\\xe4ufe" in process.stdout) == ("&-" not in call)
    one, other = (path.read_bytes() for path in out.glob("autoencoder/*/checkpoint.pt"))
    assert one == other


# What a model is given -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untrained() -> dict[str, nn.Module]:
    return {
        "infogan": infogan.InfoGAN(infogan.Config()).eval(),
        "gan_mlp": gan_mlp.GAN(gan_mlp.Config()).eval(),
        "autoencoder": autoencoder.Autoencoder(autoencoder.Config(hidden=20)).eval(),
    }


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_type_takes_the_same_and_whole_numbers_of_any_kind_are_whole_numbers(untrained, kind):
    models = {name: copy.deepcopy(model).to(kind) for name, model in untrained.items()}
    images = models["infogan"].generate(np.int64(3), digit=np.int32(4), c2=np.float64(0.5), seed=np.uint8(1))
    assert (images.shape, images.dtype) == ((3, 1, 28, 28), torch.float32)
    assert models["infogan"].encode(images).c1.shape == (3, 10)
    assert models["gan_mlp"].generate(torch.tensor(2), seed=7).shape == (2, 1, 28, 28)
    assert models["autoencoder"].decode(models["autoencoder"].encode(images)).shape == (3, 1, 28, 28)


LABELS, SHAPE = "digit must be one whole number or a tensor of 2, not", "must have shape"
REFUSED = [
    ("gan_mlp", {"n": 0}, "n must be at least 1, not 0"),
    ("gan_mlp", {"n": "2"}, "n must be a whole number, not '2'"),
    ("infogan", {"seed": -1}, "seed must be at least 0, not -1"),
    *(("infogan", {"digit": digit}, r"digit must lie in 0 … 9, not") for digit in (10, -1)),
    *(("infogan", {"n": 2, "digit": digit}, LABELS) for digit in (2.5, True, torch.tensor([1, 2, 3]))),
    ("infogan", {"category": 10}, "category must lie in 0 … 9, not 10"),
    ("infogan", {"digit": 3, "category": 3}, "give digit or category, not both"),
    ("infogan", {"c2": NAN}, "c2 must be finite, not nan"),
    ("infogan", {"n": 2, "c3": torch.zeros(1)}, rf"c3 {SHAPE} \(2,\), not \(1,\)"),
    *(("infogan", {"n": 2, "noise": torch.zeros(shape)}, f"noise {SHAPE}") for shape in ((62,), (1, 62), ())),
    ("gan_mlp", {"n": 2, "noise": torch.zeros(2, 99)}, rf"noise {SHAPE} \(2, 100\), not \(2, 99\)"),
    ("gan_mlp", {"noise": torch.full((1, 100), INF)}, "noise must be finite, not inf"),
    ("autoencoder", {"hidden": torch.zeros(20)}, rf"hidden {SHAPE} \(n, 20\), not \(20,\); the batch"),
    ("infogan", {"x": torch.zeros(1, 28, 28)}, "the batch dimension is missing"),
    ("autoencoder", {"x": torch.zeros(2, 784)}, f"images {SHAPE}"),
    ("infogan", {"x": torch.zeros(2, 1, 28, 28).byte()}, "images must be of floats, not torch.uint8"),
    ("infogan", {"x": torch.full((1, 1, 28, 28), 255.0)}, r"grey values must lie in \[0, 1\], not 255 to 255"),
    ("autoencoder", {"x": torch.full((1, 1, 28, 28), NAN)}, "grey values must lie in"),
]


@pytest.mark.parametrize(("script", "given", "line"), REFUSED)
def test_a_model_refuses_what_would_silently_give_a_wrong_result(untrained, script, given, line):
    method = {"x": "encode", "hidden": "decode"}.get(next(iter(given)), "generate")
    with pytest.raises(ValueError, match=f"^[^\n]*{line}[^\n]*$"):
        getattr(untrained[script], method)(**given)


# Rooms ---------------------------------------------------------------------------------------------------------------

BELOW = {"data": "data train", "train": "data train", "run": "data train run", "explorer": "data train run explorer"}
BELOW = {room: rooms.split() for room, rooms in BELOW.items()} | {"look": [*BELOW, "look"]}


def test_imports_run_one_way():
    for path in (ROOT / "common").rglob("*.py"):
        nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        names = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        assert not {name.partition(".")[0] for name in names} & {*SCRIPTS, "studies", "tests"}, path
        rooms = {name.split(".")[1] for name in names if name.startswith("common.")}
        room = path.relative_to(ROOT / "common").parts[0]
        assert rooms <= {*BELOW.get(room, [])}, path

"""What a user types: flags and fields, what can't be used in one line, every end's exit status, what a model is given;
and that no environment changes a run. Last, which file may import which."""

import ast
import contextlib
import copy
import dataclasses
import errno
import importlib.util
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
from common.data.inputs import indices, numbers
from common.run.cli import parse
from common.run.config import ACTIONS, PROVENANCE, ROOT, Settings, flag, read_config
from common.run.run import Run, as_stored, batch_ends, epochs_of
from tests.children import SCRIPTS, assert_refused, shell
from tests.helpers import command_line

EACH = pytest.mark.parametrize("script", SCRIPTS)
CONFIGS = {script: module.Config for script, module in SCRIPTS.items()}
NAN, INF = math.nan, math.inf


def short(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {value.dtype} {value.flatten()[:2].tolist()}"
    return ", ".join(f"{name}={short(one)}" for name, one in value.items()) if isinstance(value, dict) else str(value)


# Fields --------------------------------------------------------------------------------------------------------------

# What no field of a type takes, and what some fields don't
BY_TYPE = {
    int: (None, 2.5, "2.5", "many", "", True, NAN, 10**400),
    float: (None, "fast", True, NAN, "nan", INF, -INF),
    bool: (None, 1, "yes"),
    str: (None, 3),
    tuple[int, ...]: (None, (), 8, "8", (8, 8.5), (8, "wide"), (True,), (8, 0), (8, 8193)),
    Path: (None, 3, "~nobody at all/x"),
    Path | None: (3,),
}
BY_NAME = {
    **{"epochs": (0, 100_001), "batch_size": (1, 1_000_001), "seed": (-1, 2**32), "shift": (-1, 15)},
    **{"noise_size": (0, 4097), "hidden": (0, 784), "hidden_bias": (-101, 101), "decay_from": (-0.1, 1.1)},
    **dict.fromkeys(("learning_rate", "learning_rate_sgd", "learning_rate_d", "learning_rate_g"), (-1, 2)),
    **dict.fromkeys(("info_weight", "continuous_weight", "guide_weight"), (-1, 1001)),
    **{"leak": (-0.1, 1.1), "beta1": (-0.1, 1), "average": (-0.1, 1)},
    **{"device": ("tpu", "", None), "precision": ("float16", None), "optimizer": ("rmsprop", None)},
}
FIELDS = {field.name: (script, field) for script in CONFIGS for field in dataclasses.fields(CONFIGS[script])}


@pytest.mark.parametrize(("script", "field"), FIELDS.values(), ids=FIELDS)
def test_a_field_of_another_type_or_out_of_its_limits_is_named(script, field):
    for value in (*BY_TYPE.get(field.type, ()), *BY_NAME.get(field.name, ())):
        with pytest.raises(BadInput, match=f"^{flag(field.name)}(: .* is no path: .*| must be .{{,150}})$"):
            CONFIGS[script](**{field.name: value})


MINE = '''"""A script of somebody's own."""
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from common.run.config import Settings

@dataclass(frozen=True)
class Config(Settings):
    # my own
    epochs: int = 5
    batch_size: int = 9 # one space before the comment, 100 % mine
    average: float = 0
    rates: tuple[float, ...] = (1, 2)  # more than one
    data_dir: Path = Path("/datasets")
    share: Optional[float] = None

    SCRIPT = "mine"
    LIMITS = {"epochs": (1, 7), "rates": (0, 3)}
    PRESETS = {"quick": {"epochs": 1, "batch_size": 3}}

    quick: bool = False
'''


@pytest.fixture
def mine(tmp_path, monkeypatch) -> type[Settings]:
    """A Config as users edit it: without comments, and with a default of another spelling than its type."""
    (tmp_path / "mine.py").write_text(MINE)
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    monkeypatch.setitem(sys.modules, "mine", module := importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module.Config


def test_the_annotation_decides_whatever_the_default_is_and_limits_and_presets_add_to_those_inherited(mine, capsys):
    config = parse(mine, ["--average", "0.5", "--epochs", "6", "--rates", "1", "2.5", "--share", "0.25"])
    assert (config.share, mine().share) == (0.25, None)
    assert (config.average, config.epochs, config.rates, config.data_dir) == (0.5, 6, (1.0, 2.5), Path("/datasets"))
    plain = mine(epochs=np.int64(3), average=np.float32(0.5), rates=["1", 2])
    assert [*map(type, (plain.epochs, plain.average, *plain.rates, mine().average))] == [int, *[float] * 4]
    for name, value in (("epochs", 8), ("rates", (4,)), ("average", 1), ("batch_size", 1)):
        with pytest.raises(BadInput, match=f"^{flag(name)} must be at "):
            mine(**{name: value})
    assert (mine.make(quick=True).epochs, mine.make(quick=True, smoke=True).batch_size) == (1, 64)
    assert (Settings.LIMITS["epochs"], [*Settings.PRESETS]) == ((1, 100_000), ["smoke"])
    with pytest.raises(SystemExit):
        parse(mine, ["--help"])
    said = " ".join(capsys.readouterr().out.split())
    shown = ["A script of somebody's own.", "--epochs N (5)", "N one space before the comment, 100 % mine (9)"]
    shown += ["--average X (0)", "more than one (1, 2)", "--data-dir PATH (/datasets)"]
    assert [text for text in shown if text not in said] == []
    assert re.search(r"my own: [^:]*--average", said)


@pytest.mark.parametrize(
    ("batch_size", "images", "ends"),
    [
        (50, 150, [50, 100]),
        (50, 152, [50, 100, 150]),
        (50, 151, [50, 100]),
        (127, 128, []),
        (128, 1290, [*range(128, 1289, 128)]),
        (128, 500, [*range(50, 499, 50)]),
        (128, 90, [16, 32, 48, 64, 80]),
    ],
)
def test_every_batch_of_an_epoch_has_two_images_or_more(batch_size, images, ends):
    """One image left over joins the batch before it; the default, 128, is at most a tenth of the set, at least 16."""
    assert batch_ends(autoencoder.Config(batch_size=batch_size), images) == ends


LENGTHS = [(60_000, 30, 30), (20_000, 30, 30), (8_000, 30, 75), (1_540, 30, 390), (100, 30, 600), (100, 31, 31)]
LENGTHS += [(60_000, 3, 3), (1_540, 3, 77), (257, 3, 91), (86, 3, 167), (86, 4, 4)]  # of 1,000 updates at least


@pytest.mark.parametrize(("images", "epochs", "expected"), LENGTHS)
def test_a_small_set_gets_more_epochs_if_none_are_chosen(images, epochs, expected):
    config_class = infogan.Config if epochs < 5 else autoencoder.Config
    assert epochs_of(config_class(epochs=epochs), images) == expected


def test_a_chosen_batch_size_above_the_set_is_refused_before_a_download(tmp_path, out):
    config = autoencoder.Config(batch_size=60_001, data_dir=tmp_path, out=out, dataset="mnist")
    with pytest.raises(BadInput, match="--batch-size 60001 is larger than the training set of 60000 images"):
        Run(config)


def store(folder: Path, config: Settings, **changes: object) -> Path:
    """Write the config.json of a run, with changes; `...` removes a field."""
    content = {name: value for name, value in (as_stored(config) | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(content, default=str), encoding="utf-8")
    return folder


@EACH
def test_what_is_stored_is_every_field_with_paths_in_full_and_where_the_run_comes_from(script, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "my copy.py"), "--out", "my outputs"])
    config = CONFIGS[script](seed=7, out="my outputs", data_dir="~/my data", quiet=True)
    stored = as_stored(config)
    names = {field.name for field in dataclasses.fields(config)}
    assert stored.keys() == names - {*ACTIONS} | {*PROVENANCE} - {"images"}
    assert (stored["seed"], stored["script"], shlex.split(stored["command"])) == (7, script, sys.argv)
    assert stored["versions"].keys() == {"python", "torch", "torchvision", "numpy", "scipy", "matplotlib"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", stored["started"])
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (stored["git_commit"] or "").removesuffix("-dirty") == git.stdout.strip()
    again = read_config(store(tmp_path, config), type(config))
    assert again == dataclasses.replace(config, out=tmp_path / "my outputs", data_dir=tmp_path / "my data", quiet=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without git
    monkeypatch.setattr(sys, "argv", ["/usr/lib/ipykernel_launcher.py", "-f", "kernel.json"])  # and a notebook
    assert [as_stored(config)[name] for name in ("git_commit", "command")] == [None, None]


UNFIT = [
    ({"script": "dcgan"}, "is a run of dcgan, not of gan_mlp"),
    ({"script": ...}, "is a run of None"),
    ({"dropout_d": 0.3}, "unknown .'dropout_d'"),
    ({"seed": ...}, "missing .'seed'"),
    ({"seed": None}, "--seed must be of type int, not None"),
    ({"batch_size": 0}, "--batch-size must be at least 2"),
    ({"leak": NAN}, "--leak must be at least 0"),
    ({"precision": "best"}, "--precision must be one of auto, float32, bfloat16, not best"),
    ({"widths_g": [[8]]}, "--widths-g must be of type int"),
]


@pytest.mark.parametrize(("changes", "line"), UNFIT, ids=short)
def test_a_config_that_does_not_fit_is_named_with_what_is_wrong(tmp_path, changes, line):
    with pytest.raises(BadInput, match=f"^{re.escape(str(tmp_path / 'config.json'))}: .*{line}"):
        read_config(store(tmp_path, gan_mlp.Config(), **changes), gan_mlp.Config)


# Flags ---------------------------------------------------------------------------------------------------------------

SMOKE = {"smoke": True, "epochs": 2, "batch_size": 64, "dataset": "drawn"}
PAPER = {"paper": True, "epochs": 12, "learning_rate_d": 2e-4, "decay_from": 1.0, "guide_weight": 0.0, "average": 0.0}
PARSED = [
    ("infogan", "--epochs 7 --learning-rate-g 5e-4 --seed=3", {"epochs": 7, "learning_rate_g": 5e-4, "seed": 3}),
    ("infogan", "--out x/y --learn-variance", {"out": Path("x/y"), "learn_variance": True}),
    ("infogan", "--learn-variance --no-learn-variance --no-smoke --quiet", {"quiet": True}),
    *((script, "--seed 3 --epochs 5 --smoke", SMOKE | {"seed": 3, "epochs": 5}) for script in SCRIPTS),
    ("infogan", "--paper", PAPER),
    ("infogan", "--average 0.9 --paper", PAPER | {"average": 0.9}),  # a flag beside a preset counts, in any order
    ("infogan", "--paper --average 0.9", PAPER | {"average": 0.9}),
    ("infogan", "--smoke --paper", PAPER | SMOKE),  # and smoke makes the paper's run short
    ("infogan", "--no-paper --no-smoke", {}),
    ("gan_mlp", "--widths-g 32 48 --widths-d 9 --leak 0", {"widths_g": (32, 48), "widths_d": (9,), "leak": 0.0}),
    ("autoencoder", "--hidden-bias -1 --optimizer sgd", {"hidden_bias": -1.0, "optimizer": "sgd"}),
]


@pytest.mark.parametrize(("script", "flags", "fields"), PARSED, ids=short)
def test_flags_become_fields_of_their_type(script, flags, fields):
    config = parse(CONFIGS[script], flags.split())
    assert config == CONFIGS[script](**fields)
    assert [type(getattr(config, name)) for name in fields] == [type(value) for value in fields.values()]


# Flags, and what the line must name
BAD = [
    *((f"--epochs {value}", "--epochs") for value in ("0", "-3", "2.5", "many", "nan", "1" + "0" * 400, "")),
    ("--batch-size 10000", "larger than the training set"),
    ("--dataset imagenet", "--dataset must be one of auto, mnist, fashion, kmnist, drawn or a folder"),
    *((flags, re.split("[ =]", flags)[0]) for flags in ("--dataset=", "--device tpu", "nonsense", "--smoke=yes")),
    ("--smoke yes", "there is no flag yes"),
    ("--nonsense 1", "there is no flag --nonsense; --help lists all"),
    ("--smoek", "perhaps you meant --smoke"),
    ("--batch_sizes=3", "there is no flag --batch_sizes; perhaps you meant --batch-size"),
    ("--resume {tmp}/none", "{tmp}/none: there is no such run folder"),
    ("--resume {tmp}", "{tmp}/config.json: cannot be read"),
    *((f"--out {folder}", f"--out: {folder}") for folder in ("/proc/version", "/proc/nowhere")),
    ("--learning-rate-sgd -inf", "--learning-rate-sgd"),
]
OWN_BAD = [("gan_mlp", "--widths-g 8 wide", "--widths-g"), ("gan_mlp", "--widths-g", "--widths-g")]
OWN_BAD += [("infogan", "--guide-weight -1 --paper", "--guide-weight")]


@pytest.mark.parametrize(("script", "flags", "named"), [*(("autoencoder", *row) for row in BAD), *OWN_BAD], ids=short)
def test_a_bad_flag_is_one_line_that_names_it_and_nothing_is_written(tmp_path, script, flags, named):
    flags = f"--smoke --batch-size 16 --data-dir {{tmp}}/data --out {{tmp}}/out {flags}".replace("{tmp}", str(tmp_path))
    assert_refused(shell(script, *flags.split()), script, named.replace("{tmp}", str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@EACH
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

    for folder, name in ((tmp_path, "own.py"), (tmp_path / "copy", "other.py")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("x = 1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD").strip()
    for root, change, expected in ((".", "", head), ("copy", "", None), (".", "x = 2", f"{head}-dirty")):
        monkeypatch.setattr("common.run.run.ROOT", (tmp_path / root).resolve())
        (tmp_path / "own.py").write_text(change or "x = 1")
        assert as_stored(autoencoder.Config())["git_commit"] == expected


# Ends and environments -----------------------------------------------------------------------------------------------

MEMORY = "out of memory: a smaller --batch-size, or smaller networks, need less"
ON_A_CPU = (
    "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)
ENDS = [
    (None, 0, ""),
    (BadInput("--x: no"), 2, "--x: no"),
    (RunFailed("loss is nan"), 1, "loss is nan"),
    (Stopped("stopped in epoch 3"), 130, "stopped in epoch 3"),
    (KeyboardInterrupt(), 130, "stopped"),
    (MemoryError(), 1, MEMORY),
    (torch.OutOfMemoryError("Tried to allocate\nmany lines"), 1, MEMORY),
    (RuntimeError(f"{ON_A_CPU} 268435456 bytes. Error code 12 (Cannot allocate memory)"), 1, MEMORY),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None, ""),
    (OSError(errno.ENOSPC, "No space left on device", "/x/y.pt"), 1, "/x/y.pt: No space left on device"),
    (OSError("broken"), 1, "the run: broken"),
    (ZeroDivisionError(), None, ""),  # a fault of the program shows where it is
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


@pytest.mark.parametrize("value", [3, torch.tensor(3), torch.tensor([3, 3]).byte()], ids=short)
def test_one_number_stands_for_all(value):
    chosen, given = indices("digit", value, 2, 10), numbers("c2", value, (2,))
    assert (chosen.tolist(), chosen.dtype, given.tolist(), given.dtype) == ([3, 3], torch.int64, [3, 3], torch.float32)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_type_takes_the_same_and_whole_numbers_of_any_kind_are_whole_numbers(untrained, kind):
    models = {name: copy.deepcopy(model).to(kind) for name, model in untrained.items()}
    images = models["infogan"].generate(np.int64(3), digit=np.int32(4), c2=np.float64(0.5), seed=np.uint8(1))
    assert (images.shape, images.dtype) == ((3, 1, 28, 28), torch.float32)
    assert models["infogan"].encode(images).c1.shape == (3, 10)
    assert models["gan_mlp"].generate(torch.tensor(2), seed=7).shape == (2, 1, 28, 28)
    assert models["autoencoder"].decode(models["autoencoder"].encode(images)).shape == (3, 1, 28, 28)


@pytest.mark.parametrize(
    ("script", "method", "given", "line"),
    [
        ("infogan", "generate", {"seed": -1}, "seed must be at least 0, not -1"),
        ("gan_mlp", "generate", {"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ("gan_mlp", "generate", {"n": 0}, "n must be at least 1, not 0"),
        ("infogan", "generate", {"c2": NAN}, "c2 must be finite, not nan"),
        (
            "autoencoder",
            "decode",
            {"hidden": torch.zeros(20)},
            r"hidden must have shape \(n, 20\), not \(20,\); the batch",
        ),
        ("infogan", "encode", {"x": torch.zeros(1, 28, 28)}, "the batch dimension is missing"),
        ("infogan", "encode", {"x": torch.full((1, 1, 28, 28), 255.0)}, "not 255 to 255"),
    ],
)
def test_a_bad_value_is_named_with_what_it_was(untrained, script, method, given, line):
    with pytest.raises(ValueError, match=line):
        getattr(untrained[script], method)(**given)


IMAGES = [torch.zeros(shape) for shape in ((28, 28), (2, 28, 28), (2, 3, 28, 28), (2, 1, 28, 27), (2, 784))]
IMAGES += [torch.zeros(2, 1, 28, 28, dtype=kind) for kind in (torch.uint8, torch.bool, torch.complex64)]
IMAGES += [torch.full((2, 1, 28, 28), value) for value in (1.01, -0.01, NAN, INF, 255.0)]
INFOGAN = [
    *({name: value} for name in ("digit", "category") for value in (10, -1, 2.5, 0.0, True)),
    *({"n": 2, "digit": torch.tensor(value)} for value in ([0, 10], [0, -1], [0.0, 1.0], [1, 2, 3], [True, False])),
    *({"n": 2, "category": torch.tensor(value)} for value in ([1], [[1, 2]])),
    *({code: value} for code in ("c2", "c3") for value in (NAN, INF, -INF)),
    *({"n": 2, "c3": torch.zeros(shape)} for shape in ((3,), (1,), (2, 1))),
    *({"n": 2, "noise": torch.zeros(shape)} for shape in ((62,), (1, 62), (2, 61), (2, 74), ())),
    *({"digit": 3, "category": 3}, {"n": 2, "c2": torch.tensor([0.0, NAN])}),
]
GAN_MLP = [
    *({"n": n} for n in (0, -1, 2.0, "2", None)),
    *({"n": 2, "noise": torch.zeros(shape)} for shape in ((100,), (1, 100), (2, 99), ())),
    {"noise": torch.full((1, 100), INF)},
]
HIDDEN = [*(torch.zeros(shape) for shape in ((3, 21), (20,), (1, 2, 20))), torch.full((1, 20), NAN)]
REFUSED = [
    *(("infogan", "generate", given) for given in INFOGAN),
    *(("gan_mlp", "generate", given) for given in GAN_MLP),
    *((script, "encode", {"x": x}) for script in ("infogan", "autoencoder") for x in IMAGES),
    *(("autoencoder", "decode", {"hidden": hidden}) for hidden in HIDDEN),
]


@pytest.mark.parametrize(("script", "method", "given"), REFUSED, ids=short)
def test_a_model_refuses_what_would_silently_give_a_wrong_result(untrained, script, method, given):
    named = "images|grey values" if method == "encode" else "|".join(given)
    with pytest.raises(ValueError, match=rf"^({named}) must|^give digit or category, not both") as refused:
        getattr(untrained[script], method)(**given)
    assert "\n" not in str(refused.value)
    assert "torch.Size" not in str(refused.value)


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

"""The command line: flags become a Config, what can't be used is one line, every end has its exit status."""

import contextlib
import dataclasses
import errno
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import BadInput, RunFailed, Stopped
from common.cli import parse
from common.settings import ROOT, Settings, flag
from tests.children import SCRIPTS, assert_refused, shell
from tests.helpers import command_line

EACH = pytest.mark.parametrize("script", SCRIPTS)
CONFIGS = {script: module.Config for script, module in SCRIPTS.items()}
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


@pytest.mark.parametrize(("script", "flags", "fields"), PARSED, ids=[" ".join(row[:2]) for row in PARSED])
def test_flags_become_fields_of_their_type(script, flags, fields):
    config = parse(CONFIGS[script], flags.split())
    assert config == CONFIGS[script](**fields)
    assert [type(getattr(config, name)) for name in fields] == [type(value) for value in fields.values()]


# For every script: flags, and what the line must name
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
]
OWN_BAD = [
    ("autoencoder", "--learning-rate-sgd -inf", "--learning-rate-sgd"),
    *(("gan_mlp", f"--widths-g {widths}", "--widths-g") for widths in ("8 wide", "", "0")),
    ("infogan", "--guide-weight -1 --paper", "--guide-weight"),
]
TABLE = [*((script, *row) for script in SCRIPTS for row in BAD), *OWN_BAD]


@pytest.mark.parametrize(("script", "flags", "named"), TABLE, ids=[f"{row[0]} {row[1]}"[:50] for row in TABLE])
def test_a_bad_flag_is_one_line_that_names_it_and_nothing_is_written(tmp_path, script, flags, named):
    flags = f"--smoke --batch-size 16 --data-dir {{tmp}}/data --out {{tmp}}/out {flags}".replace("{tmp}", str(tmp_path))
    assert_refused(shell(script, *flags.split()), script, named.replace("{tmp}", str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


MEMORY = "out of memory, a smaller --batch-size needs less"
FULL = OSError(errno.ENOSPC, "No space left on device", "/x/checkpoint.pt")
ENDS = [
    (None, 0, ""),
    (BadInput("--x: no"), 2, "--x: no"),
    (RunFailed("loss is nan"), 1, "loss is nan"),
    (Stopped("stopped in epoch 3"), 130, "stopped in epoch 3"),
    (KeyboardInterrupt(), 130, "stopped"),
    (MemoryError(), 1, MEMORY),
    (torch.OutOfMemoryError("Tried to allocate\nmany lines"), 1, MEMORY),
    (FULL, 1, "/x/checkpoint.pt: No space left on device"),
    (OSError("broken"), 1, "the run: broken"),
    (ZeroDivisionError(), None, ""),  # a fault of the program shows where it is
]


@pytest.mark.parametrize(("error", "status", "line"), ENDS, ids=[repr(row[0])[:30] for row in ENDS])
def test_every_end_has_its_exit_status_and_its_line(monkeypatch, error, status, line):
    seen = []

    def main(config) -> None:
        seen.extend((config.seed, *map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))))
        if error:
            error.add_note("go on with: this")
            raise error

    monkeypatch.setattr(SCRIPTS["gan_mlp"], "main", main)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for a background job
    with contextlib.nullcontext() if status is not None else pytest.raises(type(error)):
        said = f"gan_mlp.py: {line}; go on with: this\n" if status else ""
        assert shell("gan_mlp", "--seed", 5) == (status, "", said)
    signal.signal(signal.SIGINT, before)
    assert seen == [5, signal.default_int_handler, signal.default_int_handler]


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
    shown = ["{auto,cpu,cuda,mps}", "(off)", "(outputs in the repository)", "] (128)"]
    shown += {"infogan": ["(0.0008)"], "gan_mlp": ["(128 256 512)", "(on)"], "autoencoder": ["{adam,sgd}"]}[script]
    assert [text for text in shown if text not in " ".join(said.out.split())] == []


@EACH
def test_importing_a_script_does_no_work(tmp_path, script):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {script}"
    call = [sys.executable, "-c", code + "; print({'matplotlib', 'scipy'} & {*sys.modules})"]
    process = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (process.stdout, process.stderr) == ("set()\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_run_does_not_depend_on_the_console_or_on_the_users_settings(tmp_path):
    """ASCII only, no console at all, a plotting backend that is not there; within a profiler."""
    out = tmp_path / "schöne Läufe"
    strange = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "nonsense", "HOME": str(tmp_path / "none"), "LC_ALL": "C"}
    command = shlex.join(command_line("autoencoder.py", "--smoke", "--epochs", 1, "--out", out))
    profiled = command.replace(" ", " -m cProfile ", 1)
    for call in (command, profiled, f"{command} >&- 2>&-"):
        process = subprocess.run(
            call, shell=True, env=os.environ | strange, cwd=tmp_path, capture_output=True, timeout=300, check=False
        )
        assert process.returncode == 0, process.stderr
        assert (b"sch\\xf6ne L\\xe4ufe" in process.stdout) == ("&-" not in call)
    weights = [path.read_bytes() for path in out.glob("autoencoder/*/checkpoint.pt")]
    assert weights == weights[:1] * 3

"""The scripts as a shell calls them: within this process, or in one of their own that may be signalled and starved.

Processes are forked from a server that has imported everything: each costs milliseconds, not the seconds of `import
torch`, so that a script can be killed twenty times within a test. All train small networks on few rendered digits.
"""

import atexit
import contextlib
import functools
import io
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
import scipy.optimize  # what a run imports only when it needs it
import scipy.stats  # noqa: F401
import torch
import torch._dynamo
from matplotlib.figure import Figure
from tqdm import auto  # noqa: F401

import autoencoder
import gan_mlp
import infogan
from common.data import check_dataset, render_digits
from common.look import infogan as look_infogan
from common.look import plots
from common.run import run as run_module
from common.run.cli import run_cli
from common.run.config import ROOT
from common.run.files import atomic_write
from common.run.run import Run
from tests.helpers import make_quick

SCRIPTS = {"autoencoder": autoencoder, "gan_mlp": gan_mlp, "infogan": infogan}
EPOCHS, UPDATES = 2, 2  # of these runs
SMALL = f"--epochs {EPOCHS} --batch-size 64 --dataset drawn --device cpu --precision float32".split()
OWN = {
    "autoencoder": ["--hidden", "20"],
    "gan_mlp": ["--widths-g", "32", "48", "--widths-d", "48", "32"],
    "infogan": ["--noise-size", "5", "--batch-size", "16"],
}

_threads = torch.get_num_threads()
torch.set_num_threads(1)  # a fork copies no threads, so the server must not have begun any
TINY = render_digits(train=128, test=100)  # a sheet shows a hundred of them
DATA = {"autoencoder": TINY, "gan_mlp": TINY, "infogan": render_digits(train=32, test=32)}  # whose networks are large
torch.set_num_threads(_threads)


class Shell(NamedTuple):
    """The exit status (negative: the signal that killed it), standard output and standard error."""

    status: int
    out: str
    err: str


def flags_of(script: str, out: Path, *more: object) -> list[str]:
    """The flags of a small run."""
    return [*SMALL, *OWN[script], "--out", str(out), "--data-dir", str(out.parent / "data"), *map(str, more)]


def shell(script: str, *flags: object) -> Shell:
    """Call a script as the shell does, but within this process and on the few images."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(run_module, "load_dataset", lambda name, *_: check_dataset(name) or DATA[script])
        patch.setattr(sys, "argv", [str(ROOT / f"{script}.py"), *map(str, flags)])
        try:
            run_cli(SCRIPTS[script].main, SCRIPTS[script].Config)
        except SystemExit as leaving:
            status = leaving.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Shell(status, out.getvalue(), err.getvalue())


def assert_refused(said: Shell, script: str, *named: str) -> None:
    """Bad input: exit status 2 and one line that says what was wrong."""
    assert (said.status, said.err.count("\n")) == (2, 1), said
    assert said.err.startswith(f"{script}.py: ")
    assert len(said.err) < 700
    assert [words for words in named if words not in said.err] == [], said.err


@functools.cache
def whole(script: str) -> Path:
    """The folder of a small run that nothing happened to. To be copied, not changed."""
    base = Path(tempfile.mkdtemp(prefix=f"whole-{script}-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    said = child(script, *flags_of(script, base / "outputs"))
    assert said.status == 0, said
    return base / "outputs" / script / "run-001"


def child(script: str, *flags: object, harm: Callable[[], None] | None = None) -> Shell:
    """Run a script in a process of its own: `flags` as on the shell, `harm` called in it before it starts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.children"])
    pipes = [context.Pipe(duplex=False) for _ in range(2)]  # a file would be in reach of a file-size limit
    ends = [end for _, end in pipes]
    process = context.Process(target=_run, args=(*ends, script, [str(flag) for flag in flags], harm), daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # where the server finds this module
        process.start()
    for end in ends:
        end.close()
    patience = threading.Timer(300, process.kill)
    patience.start()
    out, err = (os.fdopen(os.dup(start.fileno())).read() for start, _ in pipes)
    process.join()
    patience.cancel()
    return Shell(process.exitcode, out, err)


def _run(out: Connection, err: Connection, script: str, flags: list[str], harm: Callable[[], None] | None) -> None:
    torch.set_num_threads(1)
    make_quick(pytest.MonkeyPatch(), DATA[script])
    look_infogan.PER_CATEGORY = 5
    plots.save_figure = _save_numbers
    sys.argv = [str(ROOT / f"{script}.py"), *flags]
    sys.stdout, sys.stderr = (os.fdopen(os.dup(end.fileno()), "w", buffering=1) for end in (out, err))
    if harm:
        harm()
    run_cli(SCRIPTS[script].main, SCRIPTS[script].Config)


def _save_numbers(path: Path, figure: Figure) -> None:
    """What a plot shows, without the layout and the fonts, which take most of the time of such a run."""
    shown = [(axes.get_title(), [line.get_xydata().tolist() for line in axes.lines]) for axes in figure.axes]
    with atomic_write(path) as scratch:
        scratch.write_text(str(shown))


# Harm, to be called within a child ---------------------------------------------------------------------------------


def call_at(n: int, owner: object, name: str, do: Callable[..., object]) -> None:
    """Have `do` called before call number `n`, from 1, of a function of a module or class, with what that is given."""
    function, count = getattr(owner, name), itertools.count(1)

    def called(*given: object, **more: object) -> object:
        if next(count) == n:
            do(*given, **more)
        return function(*given, **more)

    setattr(owner, name, called)


def signal_at(number: int, n: int) -> None:
    """Send this process a signal in update number `n`."""
    call_at(n, Run, "log", lambda *_: os.kill(os.getpid(), number))


def poison_at(value: float, n: int, number: int | None = None) -> None:
    """Make a weight of the model `value` in update number `n`, in which a signal may arrive as well."""
    models = []
    call_at(1, Run, "restore", lambda run, model, **_: models.append(model))
    call_at(n, Run, "log", lambda *_: next(models[0].parameters()).data.view(-1)[0].fill_(value))
    if number:
        signal_at(number, n)


def harm_file(what: str, n: int) -> None:
    """Let something happen to file number `n`, from 1, before it takes its name: `killed` (SIGKILL with half of it
    written), `signal` (SIGTERM), `full` (no file can grow from then on)."""

    def harm(scratch: Path, path: Path) -> None:
        if what == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        elif what == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            os.truncate(scratch, scratch.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    call_at(n, os, "replace", harm)

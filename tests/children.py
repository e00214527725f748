"""Runs in processes of their own that tests may signal, kill and starve.

They are forked from a server that has imported everything: a child costs milliseconds, not the seconds of `import
torch`, so that a script can be killed twenty times within a test. All train on the same few drawn digits.
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import pty
import resource
import signal
import sys
import termios
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import scipy.optimize  # what a run imports only when it needs it
import scipy.stats  # noqa: F401
import torch
import torch._dynamo
import tqdm  # noqa: F401
import tyro  # noqa: F401
from matplotlib.figure import Figure

import autoencoder
import common.classifier
import common.guide
import common.run
import gan_mlp
import infogan
from common import images
from common.data import drawn
from common.run import ROOT, Run, launch

SCRIPTS = {"autoencoder": autoencoder, "gan_mlp": gan_mlp, "infogan": infogan}
# Small networks where a script has fields for that, and epochs of two updates.
SMALL = ["--epochs", "3", "--batch-size", "64", "--dataset", "drawn", "--device", "cpu", "--precision", "float32"]
OWN = {
    "autoencoder": ["--hidden", "20"],
    "gan_mlp": ["--widths-g", "32", "48", "--widths-d", "48", "32"],
    "infogan": ["--noise-size", "5", "--batch-size", "16"],
}
EPOCHS, UPDATES = 3, 2

_threads = torch.get_num_threads()
torch.set_num_threads(1)  # a fork copies no threads, so the server must not have begun any
TINY = drawn(train=128, test=100)  # a sheet of a hundred is drawn of them
torch.set_num_threads(_threads)

Harm = Callable[[], None]


class Child:
    """A script in a process of its own: `flags` as on the shell, `harm` called in it before it starts."""

    def __init__(self, script: str, *flags: object, harm: Harm | None = None, terminal: bool = False):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.children"])
        here, self._said = context.Pipe(duplex=False)[::-1]
        arguments = (here, script, [str(flag) for flag in flags], harm, terminal)
        self.process = context.Process(target=_run, args=arguments, daemon=True)
        with _importable():
            self.process.start()
        here.close()

    def finish(self, timeout: float = 300) -> tuple[int, str, str]:
        """Wait for the end. Returns the exit status (negative: the signal that killed it), stdout and stderr."""
        out, err = "", ""
        with contextlib.suppress(EOFError):
            while True:
                if not self._said.poll(timeout):
                    self.process.kill()
                    raise AssertionError(f"no end within {timeout} s: {out}{err}")
                number, text = self._said.recv()
                out, err = (out + text, err) if number == 1 else (out, err + text)
        self.process.join()
        return self.process.exitcode, out, err

    def kill(self) -> str:
        """SIGKILL it. Returns what it had said."""
        self.process.kill()
        _, out, err = self.finish()
        return out + err


@contextlib.contextmanager
def _importable():
    """The server finds the repository's modules by the environment that it starts with."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


class _Said:
    """A stream whose text goes through a connection: a file would be in reach of a file-size limit."""

    def __init__(self, connection: Connection, number: int):
        self._connection, self._number = connection, number

    def write(self, text: str) -> int:
        self._connection.send((self._number, text))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False


def _run(connection: Connection, script: str, flags: list[str], harm: Harm | None, terminal: bool) -> None:
    torch.set_num_threads(1)
    module = SCRIPTS[script]
    module.load_dataset = lambda *_: TINY
    if module is infogan:  # whose networks have a size of their own: fewer images instead
        module.load_dataset = lambda *_: dataclasses.replace(
            TINY,
            **{
                name: getattr(TINY, name)[:32]
                for name in ("train_images", "train_labels", "test_images", "test_labels")
            },
        )
        module.PER_CATEGORY = 5
        common.guide.UPDATES = 5
    # What takes most of the time of such a run, and is beside the point here:
    images.save_figure = _save_numbers
    common.classifier._train = lambda *_: None
    sys.argv = [str(ROOT / f"{script}.py"), *flags]
    sys.stdout, sys.stderr = _Said(connection, 1), _Said(connection, 2)
    if terminal:
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        reader = threading.Thread(target=_forward, args=(master, connection), daemon=True)
        reader.start()
        sys.stderr = os.fdopen(slave, "w")
    if harm:
        harm()
    try:
        launch(module.main, module.Config)
    finally:
        if terminal:
            sys.stderr.close()
            reader.join()


def _save_numbers(path: Path, figure: Figure) -> None:
    """What a plot shows, without drawing it."""
    shown = [line.get_xydata().tolist() for axes in figure.axes for line in axes.lines]
    for kind in (".png", ".pdf"):
        with common.run.whole_file(path.with_suffix(kind)) as scratch:
            scratch.write_text(f"{[axes.get_title() for axes in figure.axes]} {shown}")


def _forward(master: int, connection: Connection) -> None:
    with contextlib.suppress(OSError):
        while text := os.read(master, 4096):
            connection.send((2, text.decode(errors="replace")))


# Harm, to be called within a child ---------------------------------------------------------------------------------


def _after_update(n: int, do: Callable[[Run], object]) -> None:
    """Have `do` called with the run after update number `n`, from 1."""
    add, count = Run.add, itertools.count(1)

    def added(run: Run, **quantities: torch.Tensor) -> None:
        add(run, **quantities)
        if next(count) == n:
            do(run)

    Run.add = added


class SignalAt:
    """Send this process a signal in update number `n`, from 1."""

    def __init__(self, number: int, n: int):
        self.number, self.n = number, n

    def __call__(self) -> None:
        _after_update(self.n, lambda run: os.kill(os.getpid(), self.number))


class SignalWhileReading:
    """Send this process a signal before update number `n` of InfoGAN's guide, from 1."""

    def __init__(self, number: int, n: int):
        self.number, self.n = number, n

    def __call__(self) -> None:
        step, count = common.guide.train_step, itertools.count(1)

        def stepped(*arguments: object) -> None:
            if next(count) == self.n:
                os.kill(os.getpid(), self.number)
            step(*arguments)

        common.guide.train_step = stepped


class PoisonAt:
    """Make a weight of the first network that is trained `value` after update number `n`, from 1."""

    def __init__(self, value: float, n: int):
        self.value, self.n = value, n

    def __call__(self) -> None:
        _after_update(self.n, self._poison)

    def _poison(self, run: Run) -> None:
        network = next(part for part in run._parts.values() if isinstance(part, torch.nn.Module))
        with torch.no_grad():
            next(network.parameters()).view(-1)[0] = self.value


class HarmFile:
    """Let something happen while file number `n` (from 1) of those whose names end with `suffix` is written.

    `killed`: SIGKILL with the file half-written; `signal`: SIGTERM, likewise; `full`: no file may grow from then on.
    """

    def __init__(self, what: str, n: int, suffix: str = ""):
        self.what, self.n, self.suffix = what, n, suffix

    def __call__(self) -> None:
        whole, count = common.run.whole_file, itertools.count(1)

        @contextlib.contextmanager
        def harmed(path: Path):
            here = path.name.endswith(self.suffix) and next(count) == self.n
            with whole(path) as scratch:
                if here and self.what == "full":
                    resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
                yield scratch
                if here and self.what == "killed":
                    os.truncate(scratch, scratch.stat().st_size // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
                if here and self.what == "signal":
                    os.kill(os.getpid(), signal.SIGTERM)

        common.run.whole_file = harmed
        for module in (images, autoencoder):  # they hold the function by name
            module.whole_file = harmed

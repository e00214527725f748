"""Fixtures that several test files share."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

# Two tests at a time on two cores: threads of their own would wait for each other, spinning. Before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from common.data import Dataset, load_dataset, render_digits
from common.run.config import ROOT
from tests.helpers import make_quick, run_script

MNIST_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@dataclass(frozen=True)
class Finished:
    """A run of the real script in a process of its own, started from the folder `cwd`."""

    process: subprocess.CompletedProcess
    folder: Path
    cwd: Path


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    base = tmp_path_factory.mktemp("smoke")
    cwd = base / "elsewhere"
    cwd.mkdir()
    process = run_script("infogan.py", "--smoke", "--out", base / "outputs", "--data-dir", base / "data", cwd=cwd)
    assert process.returncode == 0, process.stderr
    yield Finished(process, base / "outputs" / "infogan" / "run-001", cwd)
    shutil.rmtree(base)


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    raw = ROOT / "data" / "MNIST" / "raw"
    missing = [name for name in MNIST_FILES if not (raw / name).exists() and not (raw / f"{name}.gz").exists()]
    if missing:
        pytest.skip(f"needs real MNIST: data/MNIST/raw lacks {', '.join(missing)}")
    return load_dataset("mnist", ROOT / "data")


@pytest.fixture(scope="session")
def tiny() -> Dataset:
    return render_digits(train=128, test=64)


@pytest.fixture
def on_tiny(monkeypatch, tiny):
    """InfoGAN runs on 128 drawn digits, as `helpers.make_quick` says."""
    make_quick(monkeypatch, tiny)


@pytest.fixture
def out(tmp_path):
    """A parent of run folders, with a space in its name. Removed after the test: a checkpoint is 160 MB."""
    folder = tmp_path / "my outputs"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)

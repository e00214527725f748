"""Checkpoints: everything comes back to the bit; what is damaged, foreign or hostile is one line, and runs no code."""

import contextlib
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import autoencoder
from common import BadInput, checkpoint
from common.cli import parse
from common.optim import adam
from common.run import Run
from tests.children import SCRIPTS, TINY, assert_refused, shell, whole

NAN, INF = float("nan"), float("inf")


def some_parts(seed: int, steps: int = 2) -> dict:
    """One part of each kind, with a state of its own."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    parts = {"model": model, "adam": adam(model, 1e-3), "sgd": sgd, "random": torch.Generator().manual_seed(seed)}
    for _ in range(steps):
        model(torch.randn(5, 3)).square().sum().backward()
        parts["adam"].step()
        sgd.step()
        torch.rand(3, generator=parts["random"])
    return parts | {"codes": torch.rand(6)}


@pytest.mark.parametrize("steps", [0, 2])
def test_every_part_comes_back_and_equal_states_are_equal_bytes(tmp_path, steps):
    first, second = some_parts(0, steps), some_parts(1)
    rate = second["adam"].param_groups[0]["lr"]
    checkpoint.write_tensors(tmp_path / "first.pt", checkpoint.flat(first))
    checkpoint.restore(checkpoint.read_tensors(tmp_path / "first.pt"), second)
    checkpoint.write_tensors(tmp_path / "second.pt", checkpoint.flat(second))
    assert (tmp_path / "first.pt").read_bytes() == (tmp_path / "second.pt").read_bytes()
    assert torch.equal(torch.rand(9, generator=first["random"]), torch.rand(9, generator=second["random"]))
    assert second["adam"].param_groups[0]["lr"] is rate  # where a CUDA graph reads it
    names = {"model.0.weight", "model.1.running_var", "random", "codes"}
    moments = {"adam.0.exp_avg", "adam.3.exp_avg_sq", "adam.2.step", "sgd.1.momentum_buffer"}
    assert checkpoint.flat(second).keys() >= (names | moments if steps else names)


class Accomplice:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (f"{self.path}.run",))


def entry(name: str, value: object) -> Callable[[Path], None]:
    """Another value of the first entry that matches; `...` removes it, a function changes it."""

    def change(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        key = next((key for key in content if re.fullmatch(str(name), key)), name)
        content[key] = value(content[key]) if callable(value) else value
        torch.save({key: value for key, value in content.items() if value is not ...}, path)

    return change


# What happens to the checkpoint of a finished run, and what the line must name
UNREADABLE, OTHER_VERSION = "holds no weights", "its format is not 3"
HARM = {
    "none": (Path.unlink, "cannot be read"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), UNREADABLE),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 5000), UNREADABLE),
    "a tensor": (lambda path: torch.save(torch.zeros(3), path), UNREADABLE),
    "a name that is none": (entry(1, 2), UNREADABLE),
    "a pickle that runs code": (lambda path: path.write_bytes(pickle.dumps(Accomplice(path), 2)), UNREADABLE),
    "an archive that runs code": (lambda path: torch.save({"epoch": Accomplice(path)}, path), UNREADABLE),
    "of an older version": (lambda path: torch.save({"epoch": 1, "network": {}}, path), OTHER_VERSION),
    "of a newer version": (entry("format", 4), OTHER_VERSION),
    "of no version": (entry("format", torch.zeros(4)), OTHER_VERSION),
}
WEIGHT = r"model\..*weight"
WEIGHTS = {
    "a weight missing": entry(WEIGHT, ...),
    "a weight too many": entry("model.more", torch.zeros(3)),
    "a weight of another shape": entry(WEIGHT, lambda weight: weight[:, :-1]),
    "a weight of another type": entry(WEIGHT, lambda weight: weight.double()),
    "a weight that is no number": entry(WEIGHT, lambda weight: weight / 0),
    "a weight that is text": entry(WEIGHT, "text"),
    "a sparse weight": entry(WEIGHT, lambda weight: weight.to_sparse()),
}
STATES = {  # which a run needs and a model does not
    "a moment of another shape": entry(r"optimizer.*\.exp_avg", torch.zeros(3)),
    "a moment missing": entry(r"optimizer.*\.exp_avg_sq", ...),
    "a count of steps that is none": entry(r"optimizer.*\.step", torch.tensor(NAN)),
    **{f"epoch {value}": entry("epoch", value) for value in (-1, "one", INF, 10**13, 10**30, ...)},
    "a step beyond the epoch": entry("step", 99),
    "no random state": entry("torch_random_state", None),
    "another random state": entry("torch_random_state", torch.zeros(9, dtype=torch.uint8)),
    "rows of other epochs": entry(r"row\.epoch", lambda epochs: epochs + 1),
    "a row too many": entry(r"row\.epoch", lambda epochs: torch.cat((epochs, epochs[-1:] + 1))),
    "rows of text": entry(r"row\.epoch", "1, 2, 3"),
    "no rows": entry(r"row\.epoch", ...),
    "a sum that is no number": entry("sum.loss", torch.tensor(INF)),
    "a sum of another shape": entry("sum.loss", torch.zeros(3)),
}
HARM |= {name: (harm, "model.") for name, harm in WEIGHTS.items()}
HARM |= {name: (harm, "does not fit config.json") for name, harm in STATES.items()}
PLACES = [
    *(("autoencoder", name) for name in HARM),
    *(("gan_mlp", name) for name in ("a weight missing", "a moment of another shape", "a pickle that runs code")),
    *(("infogan", name) for name in ("a weight of another shape", "a moment missing", "an archive that runs code")),
]


def listing(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:Sparse", "ignore:Valid")
@pytest.mark.parametrize(("script", "what"), PLACES, ids=[" ".join(place) for place in PLACES])
def test_a_checkpoint_that_does_not_fit_is_one_line_and_nothing_is_written(out, script, what):
    shutil.copytree(whole(script), out)
    path, (harm, said) = out / "checkpoint.pt", HARM[what]
    harm(path)
    before = listing(out)
    assert_refused(shell(script, "--resume", out), script, str(path), said)
    with pytest.raises(BadInput, match=f"{path}.*{said}") if what not in STATES else contextlib.nullcontext():
        SCRIPTS[script].load(out)
    assert listing(out) == before


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_finished_run_loads_in_eval_mode_on_the_cpu_and_a_file_in_its_place_does_not(script):
    folder = whole(script)
    model, content = SCRIPTS[script].load(str(folder)), torch.load(folder / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(value, content[f"model.{name}"]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    with pytest.raises(BadInput, match="there is no such run folder"):
        SCRIPTS[script].load(folder / "none")


ALTERED = st.lists(
    st.tuples(st.integers(0, 400) | st.integers(-3000, -1), st.binary(min_size=1, max_size=4)), max_size=5
)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.none() | st.integers(0, 60_000), altered=ALTERED, inserted=st.booleans())
def test_a_checkpoint_of_any_bytes_is_read_or_bad_input(tmp_path, monkeypatch, cut, altered, inserted):
    """For `load`, and for a run that goes on from it. Headers stand at the start of a file and at its end."""
    monkeypatch.setattr("common.run.load_dataset", lambda *_: TINY)
    shutil.copy(whole("autoencoder") / "config.json", tmp_path)
    content = bytearray((whole("autoencoder") / "checkpoint.pt").read_bytes())[:cut]
    for place, new in altered:
        content[place : place if inserted else place + len(new)] = new
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with contextlib.suppress(BadInput):
        assert autoencoder.load(tmp_path).decode(torch.zeros(1, 20)).isfinite().all()
    config = parse(autoencoder.Config, ["--resume", str(tmp_path), "--quiet"])
    with contextlib.suppress(BadInput), Run(config) as run:
        model = autoencoder.Autoencoder(config)
        run.restore(model=model, optimizer=autoencoder.make_optimizer(model))
        assert len(run.rows) == run.epoch

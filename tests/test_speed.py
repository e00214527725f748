"""What makes the scripts fast and keeps them so: captured steps, memory kept but not growing, sparing plots."""

import contextlib
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import infogan
from common.run import ROOT, Run, _restore, adam, captured, set_learning_rate
from tests.helpers import CPU


def test_on_a_cpu_the_update_itself_is_called():
    def update(batch):
        return {}

    assert captured(update, CPU, torch.Generator()) is update


class FakeGraph:
    """Takes the place of `torch.cuda.CUDAGraph` where there is no card: counts what it is asked for."""

    def __init__(self):
        self.replays, self.knows = 0, []

    def register_generator_state(self, random):
        self.knows.append(random)

    def replay(self):
        self.replays += 1


@pytest.fixture
def fake_cuda(monkeypatch):
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: contextlib.nullcontext())


@pytest.mark.usefixtures("fake_cuda")
def test_on_cuda_three_updates_run_plainly_then_one_is_recorded_and_replayed():
    seen, random = [], torch.Generator()

    def update(batch):
        seen.append(batch)
        return {"loss": batch.sum()}

    step = captured(update, torch.device("cuda"), random)
    full = [torch.arange(4) + 10 * i for i in range(6)]
    for batch in full[:3]:
        step(batch)
    assert [id(batch) for batch in seen] == [id(batch) for batch in full[:3]]

    first = step(full[3])
    assert len(seen) == 4
    recorded = seen[3]
    assert recorded is not full[3]  # a place of its own, which later batches are copied to
    assert (step._graph.replays, step._graph.knows) == (1, [random])
    assert step(full[4]) is first
    assert torch.equal(recorded, full[4])
    assert (len(seen), step._graph.replays) == (4, 2)

    short = torch.arange(2)
    step(short)  # an epoch's last
    assert seen[-1] is short
    assert step._graph.replays == 2
    step(full[5])
    assert (len(seen), step._graph.replays) == (5, 3)


def test_the_step_size_is_a_tensor_that_is_set_in_place():
    """A captured step reads it from where it was when the step was recorded."""
    optimizer = adam(nn.Linear(3, 2), 1e-3, beta1=0.5)
    rate = optimizer.param_groups[0]["lr"]
    set_learning_rate(optimizer, 5e-4)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(5e-4)


def test_an_optimiser_restored_from_another_device_keeps_the_ways_of_its_own():
    network = nn.Linear(3, 2)
    before, after = adam(network, 1e-3, beta1=0.5), adam(network, 1e-3, beta1=0.5)
    network(torch.ones(1, 3)).sum().backward()
    before.step()
    state = before.state_dict()
    state["param_groups"][0] |= {"capturable": True, "lr": 1e-3}  # as a card, or an earlier version, would store it
    rate = after.param_groups[0]["lr"]
    _restore(after, state)
    assert after.param_groups[0]["lr"] is rate
    assert after.param_groups[0]["capturable"] is False
    for old, new in zip(before.state.values(), after.state.values(), strict=True):
        assert torch.equal(old["exp_avg"], new["exp_avg"])
        assert new["step"].item() == 1


def test_plots_wait_where_they_would_take_more_than_a_twentieth_of_the_time(out, tiny):
    run = Run(infogan.Config(out=out, epochs=100), "infogan", tiny, CPU, "float32")
    drawn = []

    def draw():
        drawn.append(run.epoch)
        time.sleep(0.01)

    for run.epoch in range(1, 101):
        run.sparingly(draw)
    assert drawn == [1, 100]  # the first time, when none was spent yet, and at the end
    run._began -= 3600
    run.epoch = 50
    run.sparingly(draw)
    assert drawn == [1, 100, 50]


FAULTS = """
import resource, sys
import torch
from common.run import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def update():
    parts = [torch.zeros(1 << 20) for _ in range(8)]  # 32 MiB in all
update()
before = pages()
for _ in range(20):
    update()
print(pages() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_is_kept_for_the_next_update():
    process = subprocess.run(
        [sys.executable, "-c", FAULTS, "keep"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert int(process.stdout) < 20 * 8 * 1024 / 10  # of the pages that twenty updates touch, less than a tenth anew


WATCHED = """
import importlib, json, os, sys, time
from common.data import drawn
from common.run import Run, launch
script = importlib.import_module(sys.argv.pop(1))
if script.__name__ == "infogan":
    script.load_dataset = lambda *_: drawn(train=32, test=32)
finish, seen = Run.finish_epoch, []
def watched(run, *rest, **more):
    finish(run, *rest, **more)
    pages = int(open("/proc/self/statm").read().split()[1])
    files = [os.path.realpath("/proc/self/fd/" + number) for number in os.listdir("/proc/self/fd")]
    fonts = [file for file in files if file.endswith(".ttf")]  # matplotlib keeps some open
    seen.append((pages * os.sysconf("SC_PAGESIZE") / 1e6, len(files) - len(fonts), time.monotonic()))
Run.finish_epoch = watched
launch(script.main, script.Config)
print(json.dumps(seen))
"""
LONG = [
    ("autoencoder", 500, []),
    ("gan_mlp", 100, ["--widths-g", "32", "48", "--widths-d", "48", "32", "--batch-size", "256"]),
    ("infogan", 50, ["--batch-size", "16"]),
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("script", "epochs", "flags"), LONG, ids=[f"{script} {epochs}" for script, epochs, _ in LONG])
def test_memory_and_open_files_do_not_grow_over_many_epochs(script, epochs, flags, out):
    """How long the epochs take is printed (`-rP` shows it) and not asserted: the machine may have other work."""
    flags = ["--smoke", "--epochs", str(epochs), *flags, "--out", str(out), "--data-dir", str(out.parent / "data")]
    process = subprocess.run(
        [sys.executable, "-c", WATCHED, script, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    memory, files, clock = zip(*json.loads(process.stdout.splitlines()[-1]), strict=True)
    fifth = epochs // 5
    first, last = (clock[fifth] - clock[0]) / fifth, (clock[-1] - clock[-1 - fifth]) / fifth
    print(
        f"{script}: {memory[9]:.0f} MB after 10 epochs, {memory[-1]:.0f} MB after {epochs}, at most {max(memory):.0f}"
    )
    print(f"{script}: {1e3 * first:.0f} ms per epoch in the first fifth, {1e3 * last:.0f} ms in the last")
    # Plots leave the heap in pieces, some tens of MB in all. One update's activations kept per epoch would be more.
    assert memory[-1] < memory[9] + 100
    assert max(memory) < 1500
    assert files[-1] == files[9]

"""Where networks run and in which mode, and what makes a step fast: a captured step, memory that is kept."""

import copy
import subprocess
import sys
from contextlib import nullcontext, suppress
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from common import BadInput, device
from common.settings import ROOT

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("there", "expected"), [(["cuda", "mps"], "cuda"), (["mps"], "mps"), ([], "cpu")], ids=str)
def test_auto_is_cuda_then_mps_then_cpu_and_what_is_not_there_is_refused(monkeypatch, there, expected):
    for name, module in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        monkeypatch.setattr(module, "is_available", lambda name=name: name in there)
    assert device.choose_device("auto").type == expected
    for name in ("cuda", "mps", "cpu"):
        with nullcontext() if name in (*there, "cpu") else pytest.raises(BadInput, match=f"^--device {name}: "):
            assert device.choose_device(name).type == name


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_the_hardware_multiplies_it(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native, "avx2": True}, raising=False)
    assert [device.choose_precision("auto", where) for where in (CPU, CUDA)] == [expected] * 2
    assert device.choose_precision("auto", torch.device("mps")) == "float32"
    assert device.choose_precision("bfloat16", CPU) == "bfloat16"


def some_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize("training", [True, False])
def test_eval_mode_leaves_the_mode_as_it_was_even_after_an_error(training):
    network, seen = some_network().train(training), []

    def look() -> None:
        seen.append([network.training, network[1].training, torch.is_grad_enabled()])

    with suppress(ZeroDivisionError), device.eval_mode(network):
        look()
        raise ZeroDivisionError
    look()
    assert seen == [[False] * 3, [training, training, True]]


def test_frozen_is_a_training_pass_that_lets_gradients_through_and_not_in():
    x, network = torch.rand(4, 1, 4, 4, requires_grad=True), some_network()
    twin, before = copy.deepcopy(network), copy.deepcopy(network.state_dict())
    with device.frozen(network):
        out = network(x)
    torch.testing.assert_close(out, twin(x))
    (out * torch.arange(12).view(4, 3)).sum().backward()
    assert x.grad.abs().max() > 0
    assert all(weight.grad is None and weight.requires_grad for weight in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network(x)
    assert network[1].num_batches_tracked == network[4].num_batches_tracked == 1


def test_on_cuda_three_updates_run_eagerly_then_one_is_captured_and_replayed(monkeypatch):
    """On a card that is not there."""
    monkeypatch.setattr(torch, "cuda", MagicMock())
    graph, seen, random = torch.cuda.CUDAGraph.return_value, [], torch.Generator()

    def update(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(batch)
        return {"loss": batch.sum()}

    assert device.cuda_graphed(update, CPU, random) is update
    step = device.cuda_graphed(update, CUDA, random)
    full, short = [torch.arange(4) + 10 * i for i in range(6)], torch.arange(2)
    for batch in full[:3]:
        step(batch)
    assert [id(batch) for batch in seen] == [id(batch) for batch in full[:3]]
    assert not torch.cuda.CUDAGraph.called
    first, captured = step(full[3]), seen[3]
    assert captured is not full[3]  # a place of its own, which later batches are copied to
    assert (len(seen), graph.replay.call_count) == (4, 1)
    graph.register_generator_state.assert_called_once_with(random)
    torch.cuda.graph.assert_called_once_with(graph, stream=torch.cuda.Stream.return_value)
    assert step(full[4]) is first
    assert (captured.tolist(), len(seen), graph.replay.call_count) == (full[4].tolist(), 4, 2)
    step(short)  # an epoch's last
    assert (seen[-1] is short, graph.replay.call_count) == (True, 2)
    step(full[5])
    assert (captured.tolist(), len(seen), graph.replay.call_count) == (full[5].tolist(), 5, 3)


FAULTS = """
import resource, torch
from common.device import keep_freed_memory
keep_freed_memory()
def update():
    parts = [torch.zeros(1 << 20) for _ in range(8)]  # 32 MiB in all
update()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    update()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_is_kept_for_the_next_update():
    call = [sys.executable, "-c", FAULTS]
    process = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert int(process.stdout) < 20 * 8 * 1024 / 10  # of the pages that twenty updates touch, less than a tenth anew

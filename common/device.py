"""Where and how networks run: device, precision, modes, and what makes a step fast."""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from common import BadInput

# Takes an index batch, returns scalars to log.
Update = Callable[[Tensor], dict[str, Tensor]]


def choose_device(name: str) -> torch.device:
    """`auto` is cuda where there is one, then mps, else cpu. Raises BadInput for a device this machine lacks."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise BadInput(f"--device {name}: PyTorch finds no such device on this machine")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the hardware multiplies it natively, else float32: emulated bfloat16 is slower."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        native = _cpu_multiplies_bfloat16()
    else:
        native = False
    return "bfloat16" if native else "float32"


def _cpu_multiplies_bfloat16() -> bool:
    if not hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu._is_avx512_bf16_supported()
    able = torch.cpu.get_capabilities()
    return any(able.get(feature) for feature in ("avx512_bf16", "amx_bf16", "bf16"))


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """The context in which networks are trained: products and convolutions in `precision`, the rest in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@contextlib.contextmanager
def default_torch_modes() -> Iterator[None]:
    """Within: new tensors are float32 on the CPU and have gradients, whatever modes of torch the caller has set."""
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as modes:
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        modes.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        yield


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within: gradients flow through `network` but not into it, and its BatchNorm statistics do not move."""
    norms = [layer for layer in network.modules() if isinstance(layer, BatchNorm)]
    network.requires_grad_(False)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        network.requires_grad_(True)
        for norm in norms:
            norm.track_running_stats = True


@contextlib.contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Within: eval mode without gradients. The mode is restored afterwards."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next update.

    By default it may return megabytes to the kernel after an update and fetch them again, page by page, in the next.
    That depends on chance and costs a small network up to a third of its speed. Does nothing without glibc.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # names of <malloc.h>
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # not in musl
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(top_pad, 2**26)
        libc.mallopt(mmap_threshold, 2**25)  # the largest that glibc takes


def cuda_graphed(update: Update, device: torch.device, random: torch.Generator) -> Update:
    """On CUDA, `update` as one CUDA graph, replayed for every batch; elsewhere `update` itself.

    `update` draws from `random` and never waits for the device. What it returns is overwritten by the next call.
    """
    return _CudaGraph(update, random) if device.type == "cuda" else update


class _CudaGraph:
    """Three eager warm-up steps, then one captured as a CUDA graph and replayed. A smaller last batch runs eagerly.

    As PyTorch's notes on CUDA graphs ask: warm-up on a side stream, no gradients left at capture (each step frees the
    last one's), a random generator that the graph knows, inputs copied to a fixed place.
    """

    WARM_UP = 3

    def __init__(self, update: Update, random: torch.Generator):
        self._update, self._random = update, random
        self._stream = torch.cuda.Stream()
        self._calls = 0

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        if self._calls < self.WARM_UP:
            self._calls += 1
            return self._eager(batch)
        if self._calls == self.WARM_UP:
            self._calls += 1
            self._capture(batch)
        if len(batch) != len(self._batch):
            return self._eager(batch)
        self._batch.copy_(batch)
        self._graph.replay()
        return self._scalars

    def _eager(self, batch: Tensor) -> dict[str, Tensor]:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            scalars = self._update(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return scalars

    def _capture(self, batch: Tensor) -> None:
        self._batch = batch.clone()
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(self._random)
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._scalars = self._update(self._batch)

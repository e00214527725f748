"""Where and how networks run: device, precision, modes."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from common import BadInput


def choose_device(name: str) -> torch.device:
    """`auto` is cuda if there is one, else cpu. Raises BadInput for a device this machine lacks."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        raise BadInput(f"--device {name}: PyTorch finds no such device on this machine")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """`auto` is bfloat16 if the hardware multiplies it natively, else float32: emulated bfloat16 is slower."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        native = any(able.get(feature) for feature in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bfloat16" if native else "float32"


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """The context in which networks are trained: products and convolutions in `precision`, the rest in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@contextlib.contextmanager
def default_torch_modes() -> Iterator[None]:
    """Within: new tensors are float32 and have gradients, whatever modes of torch the caller has set."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)


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

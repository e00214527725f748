"""One rule for all random numbers: every stream comes from the run's seed and a name of its own.

Two streams of one seed are then independent, on every device, and so are equally named streams of two seeds. Looking at
more pictures, or measuring more, changes nothing that is trained.
"""

import numpy as np
import torch


def stream_seed(seed: int, name: str, number: int = 0) -> int:
    """The seed of a stream, in 0 … 2^63 - 1, from a seed (0 or more), the stream's name and a number within it, such as
    the epoch's. Hashed by NumPy's SeedSequence."""
    return int(np.random.SeedSequence([seed, number, *name.encode()]).generate_state(1, np.uint64)[0] >> 1)


def stream(seed: int, name: str, number: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator for one purpose, on the device that is to use it."""
    return torch.Generator(device).manual_seed(stream_seed(seed, name, number))


def sample(distribution: str, n: int, size: int, random: torch.Generator) -> torch.Tensor:
    """Float32 numbers (n, size), "normal" (standard) or "uniform" on -1 to 1, on the device of the random generator."""
    how = {"generator": random, "device": random.device, "dtype": torch.float32}  # whatever PyTorch's default is
    return torch.randn(n, size, **how) if distribution == "normal" else torch.rand(n, size, **how) * 2 - 1

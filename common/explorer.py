"""A page that draws with a trained generator: one file without network or server, opened by a double click.

The generator itself runs in the page, in integers: every layer's weights are rounded to whole multiples of a step per
output unit. What is shown is to equal what PyTorch draws to one grey level, in a file of at most 8 MB.
"""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.run import whole_file

TEMPLATE = Path(__file__).with_name("explorer.html")
LANES = 32  # output units that the page's inner loop works on at a time
LARGEST = 127  # of a weight of dense2, in steps
# Inputs of a unit times its largest weight: with inputs below 2^14, 32 bits hold every sum, whatever the weights.
LARGEST_SUM = 2**17


class Layers(NamedTuple):
    """A generator in eval mode, BatchNorm folded in: ReLU after each layer but the last, a sigmoid after that.

    Each is a pair of weight and bias: dense1 (h, l) and (h,), from the latent; dense2 (7 * 7 * c, h) and (7 * 7 * c,),
    an image of 7×7 with the channels last; up1 (c, d, 4, 4) and (d,), up2 (d, 1, 4, 4) and (1,), which double the side
    as a transposed convolution with stride 2 and padding 1 does. h and c are even, 7 * 7 * c and 16 * d multiples of 32.
    """

    dense1: tuple[Tensor, Tensor]
    dense2: tuple[Tensor, Tensor]
    up1: tuple[Tensor, Tensor]
    up2: tuple[Tensor, Tensor]


def save_page(path: Path, layers: Layers, latents: Tensor, about: dict[str, Any]) -> None:
    """Write the page. latents (n, l): such as the page will draw from, for which the rounding is at its best.

    about: what the page says and starts from, as JSON: `title`, `subtitle`, `kind` (what is picked: "digit"), `picks`
    (a list of [name, category]), `codes` (two of {`name`, `does`, `note`}), `noise` (the numbers of the first view).
    The latent is the noise, then one number per category, then the two codes.
    """
    packed = packed_layers(layers, latents)
    sizes = {"hidden": layers.dense2[0].shape[1], "channels": list(layers.up1[0].shape[:2]), "bytes": len(packed)}
    page = TEMPLATE.read_text(encoding="utf-8")
    texts = json.dumps(about | sizes, allow_nan=False).replace("<", "\\u003c")
    page = page.replace("{{about}}", texts).replace("{{weights}}", as_text(packed))
    with whole_file(path) as scratch:
        scratch.write_text(page, encoding="utf-8")


@torch.no_grad()
def packed_layers(layers: Layers, latents: Tensor) -> bytes:
    """The biases and steps of all layers (float32), then the weights of up1, up2, dense1 (int16) and dense2 (int8).

    Little-endian, compressed as raw deflate. Each layer's weights lie as the page's inner loop reads them.
    """
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = ((w.float().cpu(), b.float().cpu()) for w, b in layers)
    hidden = (latents.float().cpu() @ w1.T + b1).relu()
    dense1, step1 = rounded(w1, 2**15 - 1)
    dense2, step2 = rounded(w2, LARGEST, hidden.T @ hidden)
    # A transposed convolution as a dense layer from one pixel to the 4×4 pixels around it, in the order (y, x, channel).
    up1, step3 = rounded(w3.transpose(0, 1).flatten(1), LARGEST_SUM // w3.shape[0] - 1)
    up2, step4 = rounded(w4.transpose(0, 1).flatten(1), LARGEST_SUM // w4.shape[0] - 1)
    taps = [q.view(w.shape[1], w.shape[0], 16).permute(2, 0, 1).flatten(0, 1) for q, w in ((up1, w3), (up2, w4))]
    parts = [b1, step1, b2, step2, b3, step3, b4, step4]
    data = b"".join(part.numpy().astype("<f4").tobytes() for part in parts)
    data += b"".join(part.numpy().astype("<i2").tobytes() for part in (*map(interleaved, taps), dense1.T))
    data += interleaved(dense2).numpy().astype("i1").tobytes()
    # Rounded weights have no repetitions to find, only frequent and rare values.
    deflate = zlib.compressobj(level=9, wbits=-15, strategy=zlib.Z_HUFFMAN_ONLY)
    return deflate.compress(data) + deflate.flush()


def rounded(weight: Tensor, largest: int, gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Whole numbers q (units, inputs) of at most `largest` and a step (units,), so that q * step is close to weight.

    With gram (inputs, inputs), the inputs' second moments, the units' outputs come close instead: column by column, each
    one's error is made up for by the columns still to round [Frantar et al. 2023, GPTQ, arXiv:2210.17323].
    """
    step = (weight.abs().amax(dim=1) / largest).clamp(min=1e-30)
    left = weight / step[:, None]
    if gram is None:
        return left.round(), step
    gram = gram.double()
    gram = gram + 1e-4 * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    spread = torch.linalg.cholesky(inverse, upper=True).float()
    spread = spread / spread.diagonal()[:, None]
    for start in range(0, left.shape[1], 32):
        columns = slice(start, start + 32)
        part, errors = left[:, columns].clone(), []
        for i, weights in enumerate(spread[columns, columns]):
            q = part[:, i].round().clamp(-largest, largest)
            errors.append(part[:, i] - q)
            part[:, i:] -= errors[-1][:, None] * weights[i:]
            part[:, i] = q
        left[:, columns] = part
        left[:, start + 32 :] -= torch.stack(errors, dim=1) @ spread[columns, start + 32 :]
    return left, step


def interleaved(q: Tensor) -> Tensor:
    """(units, inputs) -> (blocks of 32 units, pairs of inputs, 32, 2), the last block filled up with zeros."""
    q = torch.nn.functional.pad(q, (0, 0, 0, -len(q) % LANES))
    return q.view(-1, LANES, q.shape[1] // 2, 2).transpose(1, 2).contiguous()


def as_text(data: bytes) -> str:
    """Bytes as printable ASCII without "<": two of 91 characters hold 13 bits, lowest first. 8 % less than base64."""
    groups = np.frombuffer(data + bytes(-len(data) % 13), dtype=np.uint8).reshape(-1, 13).astype(np.uint32)
    values = np.empty((len(groups), 8), dtype=np.uint32)
    for i in range(8):
        first, shift = divmod(13 * i, 8)
        window = sum(groups[:, byte] << 8 * (byte - first) for byte in range(first, min(first + 3, 13)))
        values[:, i] = window >> shift & 8191
    characters = np.stack((values % 91, values // 91), axis=-1) + 35
    return (characters + (characters >= ord("<"))).astype(np.uint8).tobytes().decode("ascii")

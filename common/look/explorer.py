"""A page that draws with a trained generator and reads with Q: one file without network or server, opened by a double
click.

Both networks run in the page, their weights quantised: each unit's are multiples of a step of its own. What is drawn is
to equal what PyTorch draws to one grey level, what is read what `encode` reads to 0.02, in a file of at most 15 MB.
Almost all of that are two layers of 6.4 million weights. The generator's, with nine bits each, rounded with regard to
the inputs, puts no pixel of 1500 pictures off by more than 0.6 grey levels; with eight bits it is 1.4, with nine bits
rounded to the nearest 1.8. Q's, with eight bits, puts no code of 1000 test images off by more than 0.005 [measured on
MNIST, in the third epoch].
"""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from common.device import eval_mode
from common.files import atomic_write

TEMPLATE = Path(__file__).with_name("explorer.html")
LANES = 32  # output units that the page's inner loop works on at a time
LARGEST = {"dense1": 2**15 - 1, "dense2": 255, "up1": 4095, "up2": 4095}  # weight, in steps


class Layers(NamedTuple):
    """A generator in eval mode, BatchNorm folded in: ReLU after each layer but the last, a sigmoid after that.

    Weights and biases: dense1 (h, l) and (h,), from the latent; dense2 (7 * 7 * c, h) and (7 * 7 * c,), an image of 7×7
    with the channels last; up1 (c, d, 4, 4) and (d,), up2 (d, 1, 4, 4) and (1,), which double the side with stride 2
    and padding 1. h, c and d are even, 7 * 7 * c and 16 * d multiples of 32, h a multiple of 8.
    """

    dense1: nn.Linear
    dense2: nn.Linear
    up1: nn.ConvTranspose2d
    up2: nn.ConvTranspose2d


class Reader(NamedTuple):
    """Q in eval mode, BatchNorm folded in: leaky ReLU (0.1) after each layer but the last, whose outputs are the logits
    of the categories, then the means of two codes. The convolutions halve the side, with kernels of 4×4, stride 2 and
    padding 1; dense reads 7×7 with the channels last."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    dense: nn.Linear
    head1: nn.Linear
    head2: nn.Linear


def plain_reader(discriminator: nn.Module) -> Reader:
    """Q as plain layers. Its parts: `convolutions` of Conv2d, LeakyReLU, Conv2d, BatchNorm, LeakyReLU; `dense` of
    Linear, BatchNorm, LeakyReLU; `head_q` of the same and another Linear."""
    with eval_mode(discriminator):
        conv1, _, conv2, norm2, _ = discriminator.convolutions
        dense, norm3, _ = discriminator.dense
        head1, norm4, _, head2 = discriminator.head_q
        folded = fuse_linear_bn_eval(dense, norm3), fuse_linear_bn_eval(head1, norm4)
        return Reader(conv1, fuse_conv_bn_eval(conv2, norm2), *folded, head2)


def plain_layers(generator: nn.Module) -> Layers:
    """A generator as plain layers. Its parts: `dense` of Linear, BatchNorm, ReLU, twice; `upsample` of ConvTranspose2d,
    BatchNorm, ReLU, ConvTranspose2d."""
    with eval_mode(generator):
        dense1, norm1, _, dense2, norm2, _ = generator.dense
        up1, norm3, _, up2 = generator.upsample
        dense = (fuse_linear_bn_eval(layer, norm) for layer, norm in ((dense1, norm1), (dense2, norm2)))
        return Layers(*dense, fuse_conv_bn_eval(up1, norm3, transpose=True), up2)


def save_page(path: Path, layers: Layers, reader: Reader, latents: Tensor, about: dict[str, Any]) -> None:
    """Write the page. latents (n, l): such as it will draw from, at which the rounding is best.

    A latent is the noise, then one number per category, then the two codes. about, as JSON, is what the page says and
    starts from: `title`, `subtitle`, `kind` (of what is picked: "digit"), `picks` (a list of [name, category]), `codes`
    (two of {`name`, `does`, `ends`, `note`}), `noises` (one per seed from 0 on) and `first` (its number at the start).
    """
    packed, limits = packed_layers(layers, latents)
    read = packed_reader(reader)
    sizes = {"hidden": layers.dense2.in_features, "channels": list(layers.up1.weight.shape[:2])}
    sizes |= {"bytes": [len(packed), len(read)], "reading": [list(part.weight.flatten(1).shape) for part in reader]}
    texts = json.dumps(about | sizes | {"limits": limits}, allow_nan=False)
    page = TEMPLATE.read_text(encoding="utf-8").replace("{{about}}", texts.replace("<", "\\u003c"))
    page = page.replace("{{weights}}", as_text(packed)).replace("{{reader}}", as_text(read))
    with atomic_write(path) as scratch:
        scratch.write_bytes(("\ufeff" + page).encode("utf-16-le"))  # the mark outweighs whatever a server says


@torch.no_grad()
def packed_layers(layers: Layers, latents: Tensor) -> tuple[bytes, dict[str, int]]:
    """Bias and step of each layer (float32), then the weights as the page's inner loop reads them: up1, up2, dense1 in
    int16, the upper eight of dense2's nine bits in int8, eight lowest bits to a byte. Little-endian, as a raw deflate.

    Also the largest input of each layer with which no sum leaves 32 bits.
    """
    weights = {name: layer.weight.float().cpu() for name, layer in layers._asdict().items()}
    biases = {name: layer.bias.float().cpu() for name, layer in layers._asdict().items()}
    # A transposed convolution is a dense layer from a pixel to the 4×4 pixels around it: (channel, y, x) each.
    for name in ("up1", "up2"):
        weights[name] = weights[name].transpose(0, 1).flatten(1)
    hidden = (latents.float().cpu() @ weights["dense1"].T + biases["dense1"]).relu()
    moments = {"dense2": hidden.T @ hidden}
    q, steps = {}, {}
    for name, weight in weights.items():
        q[name], steps[name] = rounded(weight, LARGEST[name], moments.get(name))
    for name in ("up1", "up2"):  # the page adds up whole rows of channels, so they are to lie together
        channels = len(q[name])
        q[name] = q[name].view(channels, -1, 16).permute(2, 0, 1).flatten(0, 1)
    limits = {name: min(2**15, int(2**31 / part.abs().sum(dim=1).max().clamp(min=1))) - 1 for name, part in q.items()}

    data = b"".join(part.numpy().astype("<f4").tobytes() for name in q for part in (biases[name], steps[name]))
    for part in (interleaved(q["up1"]), interleaved(q["up2"]), q["dense1"].T):
        data += part.numpy().astype("<i2").tobytes()
    dense2 = interleaved(q["dense2"]).numpy().astype(np.int16).ravel()
    data += (dense2 >> 1).astype(np.int8).tobytes() + np.packbits(dense2 & 1, bitorder="little").tobytes()
    return deflated(data), limits


@torch.no_grad()
def packed_reader(reader: Reader) -> bytes:
    """Bias and step of each layer (float32), then the weights (units, inputs), int16 but for those of dense, which come
    last, in int8. The inputs of a convolution are (y, x, channel). Little-endian, as a raw deflate."""
    floats, weights = b"", {}
    for name, layer in reader._asdict().items():
        weight = layer.weight.float().cpu()
        weight = weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight
        q, step = rounded(weight, 127 if name == "dense" else 2**15 - 1)
        floats += layer.bias.float().cpu().numpy().astype("<f4").tobytes() + step.numpy().astype("<f4").tobytes()
        weights[name] = q.numpy()
    dense = weights.pop("dense").astype(np.int8)
    return deflated(floats + b"".join(q.astype("<i2").tobytes() for q in weights.values()) + dense.tobytes())


def deflated(data: bytes) -> bytes:
    """Such weights never repeat themselves: there are only frequent and rare values."""
    deflate = zlib.compressobj(level=9, wbits=-15, strategy=zlib.Z_HUFFMAN_ONLY)
    return deflate.compress(data) + deflate.flush()


def rounded(weight: Tensor, largest: int, moments: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Whole numbers q (units, inputs) of at most `largest` and a step (units,), so that q * step is close to weight.

    With moments (inputs, inputs), the mean products of pairs of inputs, it is the units' outputs that come close: input
    by input, the error of rounding is made up for by the inputs still to come [Frantar et al. 2023, arXiv:2210.17323].
    """
    step = (weight.abs().amax(dim=1) / largest).clamp(min=1e-30)
    if moments is None:
        return (weight / step[:, None]).round(), step
    left = (weight / step[:, None]).T.contiguous()
    moments = moments.double()
    moments = moments + 1e-4 * moments.diagonal().mean().clamp(min=1e-12) * torch.eye(len(moments), dtype=torch.double)
    shares = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moments)), upper=True)
    shares = (shares / shares.diagonal()[:, None]).float()  # row i: what each later input takes over of the error of i
    for start in range(0, len(left), 32):
        end = min(start + 32, len(left))
        errors = torch.zeros_like(left[start:end])
        for i in range(start, end):
            q = left[i].round().clamp(-largest, largest)
            errors[i - start] = left[i] - q
            left[i:end].addr_(shares[i, i:end], errors[i - start], alpha=-1)
            left[i] = q
        left[end:].addmm_(shares[start:end, end:].T, errors, alpha=-1)
    return left.T, step


def interleaved(q: Tensor) -> Tensor:
    """(units, inputs) -> (blocks of 32 units, pairs of inputs, 32, 2), the last block filled up with zeros."""
    q = F.pad(q, (0, 0, 0, -len(q) % LANES))
    return q.reshape(-1, LANES, q.shape[1] // 2, 2).transpose(1, 2)


def as_text(data: bytes) -> str:
    """15 bits to a character, lowest first, from U+3400 on: none of them is special in HTML, and in UTF-16 the text is
    7 % larger than the data. base64 would be 33 % larger."""
    groups = np.frombuffer(data + bytes(-len(data) % 15), dtype=np.uint8).reshape(-1, 15).astype(np.uint32)
    characters = np.empty((len(groups), 8), dtype="<u2")
    for i in range(8):
        first, shift = divmod(15 * i, 8)
        window = sum(groups[:, byte] << 8 * (byte - first) for byte in range(first, min(first + 3, 15)))
        characters[:, i] = (window >> shift & 0x7FFF) + 0x3400
    return characters.tobytes().decode("utf-16-le")

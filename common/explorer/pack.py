"""The explorer: a page that runs a trained G and Q in the browser, one file that needs neither network nor server.

Each weight is a whole number times a step of its unit, rounded to the nearest. Almost all of the file are two layers of
6.4 million weights each, so LARGEST decides both its size, at most 14 MB, and how close it comes to PyTorch.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from common.run.files import atomic_write
from common.train.device import eval_mode

TEMPLATE = Path(__file__).with_name("page.html")
LANES = 32  # units that the page computes at a time
# The largest weight of each unit, in steps, in the large layer of G and in that of Q. After one epoch on MNIST 1,000
# images are within 2 grey levels of PyTorch's, c2 and c3 within 0.014; with 127 in G (8 bits) it is 4 grey levels.
LARGEST = {"dense2": 320, "dense": 80}
OTHERS = 2047  # the same in the small layers: 12 bits, the most that the format holds


def save_page(path: Path, generator: nn.Module, discriminator: nn.Module, about: dict[str, Any]) -> None:
    """Write the page of a model whose networks have the parts of infogan.py's.

    A latent is the noise, then c1 (one-hot), c2, c3, …. about, as JSON, is what the page says and starts from: `title`,
    `subtitle`, `kind` (of what is picked: "digit", "letter" or "class"), `picks` (a list of [name, category]), `codes`
    (of c2, c3, …, each a dict of `name`, `does`, `ends` (a pair), `note`), `noises` (one vector per seed from 0 on),
    `first` (the seed at the start), `example` (the 784 greys, 0 to 255, of the drawing at the start), `run` (the path
    to load the model from in Python). Raises ValueError for a number that JSON does not have.
    """
    packed, layers = pack(folded_layers(generator, discriminator))
    texts = json.dumps(about | {"layers": layers, "bytes": len(packed)}, allow_nan=False).replace("<", "\\u003c")
    page = TEMPLATE.read_text(encoding="utf-8").replace("{{weights}}", as_text(packed)).replace("{{about}}", texts)
    with atomic_write(path) as scratch:
        scratch.write_bytes(("\ufeff" + page).encode("utf-16-le"))  # the mark outweighs whatever a server says


def folded_layers(generator: nn.Module, discriminator: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight (units, inputs) and bias of each layer of G, then of Q, BatchNorm folded in, all images channels last.

    A convolution is a dense layer from the 4×4 pixels around one, a transposed convolution a dense layer to them: their
    inputs or units are (y, x, channel), and a transposed convolution has one bias per channel, not per unit.
    """
    with eval_mode(generator), eval_mode(discriminator):
        dense1, norm1, _, dense2, norm2, _ = generator.dense
        up1, norm3, _, up2 = generator.upsample
        conv1, _, conv2, norm4, _ = discriminator.convolutions
        dense, norm5, _ = discriminator.dense
        head1, norm6, _, head2 = discriminator.head_q
        layers = {
            "dense1": fuse_linear_bn_eval(dense1, norm1),
            "dense2": fuse_linear_bn_eval(dense2, norm2),
            "up1": fuse_conv_bn_eval(up1, norm3, transpose=True),
            "up2": up2,
            "conv1": conv1,
            "conv2": fuse_conv_bn_eval(conv2, norm4),
            "dense": fuse_linear_bn_eval(dense, norm5),
            "head1": fuse_linear_bn_eval(head1, norm6),
            "head2": head2,
        }
    folded = {}
    for name, layer in layers.items():
        weight, bias = (parameter.detach().float().cpu() for parameter in (layer.weight, layer.bias))
        if isinstance(layer, nn.Conv2d):
            weight = weight.permute(0, 2, 3, 1).flatten(1)
        elif isinstance(layer, nn.ConvTranspose2d):
            weight = weight.permute(2, 3, 1, 0).flatten(0, 2)
        folded[name] = weight, bias
    return folded


def pack(layers: dict[str, tuple[Tensor, Tensor]]) -> tuple[bytes, dict[str, list[int]]]:
    """All layers as a raw deflate, and the counts of each: units (filled up to a multiple of 32), inputs, biases.

    A layer is its biases and steps (float32), the upper eight bits of its 12-bit weights, then the lower four, two to a
    byte. Weights are ordered as the page's inner loop goes through them: (units / 32, inputs, 32). Little-endian.
    """
    data, counts = [], {}
    for name, (unpadded, bias) in layers.items():
        weight = F.pad(unpadded, (0, 0, 0, -len(unpadded) % LANES))
        counts[name] = [*weight.shape, len(bias)]
        step = (weight.abs().amax(dim=1) / LARGEST.get(name, OTHERS)).clamp(min=1e-30)
        q = (weight / step[:, None]).round().view(-1, LANES, weight.shape[1]).transpose(1, 2)
        q = q.numpy().astype(np.int16).ravel()
        low = (q & 15).astype(np.uint8)
        data += [bias.numpy().astype("<f4"), step.numpy().astype("<f4")]
        data += [(q >> 4).astype(np.int8), low[::2] | low[1::2] << 4]
    # Such weights never repeat themselves: there are only frequent and rare values.
    deflate = zlib.compressobj(level=9, wbits=-15, strategy=zlib.Z_HUFFMAN_ONLY)
    return deflate.compress(b"".join(part.tobytes() for part in data)) + deflate.flush(), counts


def as_text(data: bytes) -> str:
    """15 bits to a character, lowest first, from U+3400 on: none of them is special in HTML, and in UTF-16 the text is
    7 % larger than the data. base64 would be 33 % larger."""
    bits = np.unpackbits(np.frombuffer(data + bytes(-len(data) % 15), dtype=np.uint8), bitorder="little")
    characters = np.packbits(np.pad(bits.reshape(-1, 15), ((0, 0), (0, 1))), axis=1, bitorder="little")
    return (characters.view("<u2") + np.uint16(0x3400)).astype("<u2").tobytes().decode("utf-16-le")

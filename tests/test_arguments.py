"""What generate, encode and decode take and refuse, in tables."""

import math

import pytest
import torch
from torch import nn

import autoencoder
import gan_mlp
import infogan
from common import arguments

NAN, INF = math.nan, math.inf


@pytest.fixture(scope="module")
def untrained() -> dict[str, nn.Module]:
    return {
        "infogan": infogan.InfoGAN(infogan.Config()).eval(),
        "gan_mlp": gan_mlp.GAN(gan_mlp.Config()).eval(),
        "autoencoder": autoencoder.Autoencoder(autoencoder.Config(hidden=20)).eval(),
    }


def short(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {value.dtype} {value.flatten()[:2].tolist()}"
    return ", ".join(f"{name}={short(one)}" for name, one in value.items()) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize("value", [3, torch.tensor(3), torch.tensor([3, 3]).byte()], ids=short)
def test_one_number_stands_for_all(value):
    chosen, given = arguments.indices("digit", value, 2, 10), arguments.numbers("c2", value, (2,))
    assert (chosen.tolist(), chosen.dtype, given.tolist(), given.dtype) == ([3, 3], torch.int64, [3, 3], torch.float32)


N = [{"n": n} for n in (0, -1, 2.0, True, "2", None)]
INFOGAN = [
    *({name: value} for name in ("digit", "category") for value in (10, -1, 2.5, 0.0, True, 10**30)),
    *({"n": 2, "digit": torch.tensor(digits)} for digits in ([0, 10], [0, -1], [0.0, 1.0], [1, 2, 3], [True, False])),
    *({"n": 2, "category": torch.tensor(value)} for value in ([1], [[1, 2]])),
    *({"n": 2, "category": torch.tensor([], dtype=torch.long)}, {"digit": 3, "category": 3}),
    *({code: value} for code in ("c2", "c3") for value in (NAN, INF, -INF)),
    *({"n": 2, code: torch.zeros(shape)} for code in ("c2", "c3") for shape in ((3,), (1,), (2, 1))),
    *({"n": 2, "noise": torch.zeros(shape)} for shape in ((62,), (1, 62), (2, 61), (2, 74), ())),
    *({"n": 2, "c2": torch.tensor([0.0, NAN])}, {"noise": 0.0}, {"noise": torch.full((1, 62), NAN)}),
]
GAN_MLP = [{"n": 2, "noise": torch.zeros(shape)} for shape in ((100,), (1, 100), (2, 99), ())]
GAN_MLP.append({"noise": torch.full((1, 100), INF)})


@pytest.mark.parametrize(
    ("script", "given"),
    [*(("infogan", row) for row in N + INFOGAN), *(("gan_mlp", row) for row in N + GAN_MLP)],
    ids=short,
)
def test_generate_refuses(untrained, script, given):
    with pytest.raises(ValueError, match=r"^(n|digit|category|c2|c3|noise) must|not both|Overflow") as refused:
        untrained[script].generate(**given)
    assert "\n" not in str(refused.value)
    assert "torch.Size" not in str(refused.value)


IMAGES = [torch.zeros(shape) for shape in ((28, 28), (2, 28, 28), (2, 3, 28, 28), (2, 1, 28, 27), (2, 784))]
IMAGES += [torch.zeros(2, 1, 28, 28, dtype=kind) for kind in (torch.uint8, torch.bool, torch.complex64)]
IMAGES += [torch.full((2, 1, 28, 28), value) for value in (1.01, -0.01, NAN, INF, 255.0)]
HIDDEN = [*(torch.zeros(shape) for shape in ((3, 21), (20,), (), (1, 2, 20))), torch.full((1, 20), NAN)]
HIDDEN += [1.0, "x", [[0], "x"]]
CALLS = [(script, "encode", x) for script in ("infogan", "autoencoder") for x in IMAGES]


@pytest.mark.parametrize(("script", "method", "x"), CALLS + [("autoencoder", "decode", x) for x in HIDDEN], ids=short)
def test_encode_and_decode_refuse(untrained, script, method, x):
    with pytest.raises(
        ValueError, match="images must|grey values must" if method == "encode" else "hidden values must"
    ):
        getattr(untrained[script], method)(x)

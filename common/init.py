"""Weight initialisations, each named after its source.

Every initialiser visits every parameter of a network or raises: a layer that silently keeps
PyTorch's default is a different experiment from the one the file claims to run.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

WEIGHT_LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def dcgan_(network: nn.Module) -> None:
    """Weights from N(0, 0.02), BatchNorm gains from N(1, 0.02), biases 0.

    Source: Radford et al. 2015 (arXiv:1511.06434), and the authors' code of InfoGAN after it.
    Raises TypeError for a layer with parameters that the recipe does not name.
    """
    for layer in _layers_with_parameters(network):
        mean = 1.0 if isinstance(layer, BatchNorm) else 0.0
        nn.init.normal_(layer.weight, mean=mean, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _layers_with_parameters(network: nn.Module) -> list[nn.Module]:
    layers = [layer for layer in network.modules() if any(True for _ in layer.parameters(recurse=False))]
    for layer in layers:
        names = {name for name, _ in layer.named_parameters(recurse=False)}
        if not isinstance(layer, (*WEIGHT_LAYERS, BatchNorm)) or not names <= {"weight", "bias"}:
            raise TypeError(f"no initialisation is defined for {type(layer).__name__} with parameters {sorted(names)}")
    return layers

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
        nn.init.normal_(layer.weight, mean=1.0 if isinstance(layer, BatchNorm) else 0.0, std=0.02)
        _zero_bias(layer)


def fan_in_uniform_(network: nn.Module) -> None:
    """Weights from U(-1, 1) / sqrt(fan-in), BatchNorm gains 1, biases 0. Raises TypeError as `dcgan_` does.

    Source: LeCun et al. 1998, "Efficient BackProp", with a third of its variance, as PyTorch's linear layers have it.
    """
    for layer in _layers_with_parameters(network):
        if isinstance(layer, BatchNorm):
            nn.init.ones_(layer.weight)
        else:
            bound = layer.weight[0].numel() ** -0.5
            nn.init.uniform_(layer.weight, -bound, bound)
        _zero_bias(layer)


def gaussian_(network: nn.Module, std: float) -> None:
    """Weights from N(0, std), biases 0. Raises TypeError for any layer but a linear or convolutional one."""
    for layer in _layers_with_parameters(network):
        if isinstance(layer, BatchNorm):
            raise TypeError("a plain Gaussian is no initialisation for BatchNorm")
        nn.init.normal_(layer.weight, std=std)
        _zero_bias(layer)


def _zero_bias(layer: nn.Module) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _layers_with_parameters(network: nn.Module) -> list[nn.Module]:
    layers = [layer for layer in network.modules() if any(True for _ in layer.parameters(recurse=False))]
    for layer in layers:
        names = {name for name, _ in layer.named_parameters(recurse=False)}
        if not isinstance(layer, (*WEIGHT_LAYERS, BatchNorm)) or not names <= {"weight", "bias"}:
            raise TypeError(f"no initialisation is defined for {type(layer).__name__} with parameters {sorted(names)}")
    return layers

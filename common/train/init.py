"""Weight initialisations, each named after its source. Each visits every layer that has weights."""

from torch import nn

BATCHNORM = (nn.BatchNorm1d, nn.BatchNorm2d)


def dcgan_(network: nn.Module) -> None:
    """Weights from N(0, 0.02), BatchNorm gains from N(1, 0.02), biases 0.

    Source: Radford et al. 2015 (arXiv:1511.06434), and the authors' code of InfoGAN after it.
    """
    for layer in _layers(network):
        nn.init.normal_(layer.weight, mean=1.0 if isinstance(layer, BATCHNORM) else 0.0, std=0.02)


def fan_in_uniform_(network: nn.Module) -> None:
    """Weights from U(-1, 1) / sqrt(fan-in), BatchNorm gains 1, biases 0.

    Source: LeCun et al. 1998, "Efficient BackProp", with a third of its variance, as PyTorch's linear layers have it.
    """
    for layer in _layers(network):
        if isinstance(layer, BATCHNORM):
            nn.init.ones_(layer.weight)
        else:
            bound = layer.weight[0].numel() ** -0.5
            nn.init.uniform_(layer.weight, -bound, bound)


def gaussian_(network: nn.Module, std: float) -> None:
    """Weights from N(0, std), biases 0."""
    for layer in _layers(network):
        nn.init.normal_(layer.weight, std=std)


def _layers(network: nn.Module) -> list[nn.Module]:
    """The layers with weights, their biases set to 0."""
    layers = [layer for layer in network.modules() if isinstance(getattr(layer, "weight", None), nn.Parameter)]
    for layer in layers:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layers

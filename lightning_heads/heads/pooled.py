"""Heads that pool a feature map: fastai's classification head, and the split of any head after its pooling."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from ..layers import AdaptiveConcatPool2d, SigmoidRange
from ..utils.modules import uncompiled


def create_head(
    nf: int,
    n_out: int,
    lin_ftrs: Sequence[int] | None = None,
    ps: float | Sequence[float] = 0.5,
    pool: bool = True,
    concat_pool: bool = True,
    first_bn: bool = True,
    bn_final: bool = False,
    lin_first: bool = False,
    y_range: tuple[float, float] | None = None,
    init: bool = True,
) -> nn.Sequential:
    """Builds fastai's classification head: pooling, then blocks of batch norm, dropout, linear and ReLU.

    Maps `(b, nf, h, w)`, or `(b, nf)` where `pool` is false, to `(b, n_out)`. Layers and their order are those of
    fastai's `create_head`.

    Args:
        nf: Channels of the feature map; with `pool` and `concat_pool`, pooling doubles them.
        n_out: Outputs.
        lin_ftrs: Widths of the hidden layers; one of 512 by default.
        ps: Dropout probability before each linear layer, or that of the last layer, with half of it for the others.
        pool: Whether to pool and flatten first.
        concat_pool: Whether to pool by maximum and average both, or by average alone.
        first_bn: Whether batch norm precedes the first linear layer.
        bn_final: Whether batch norm follows the last linear layer.
        lin_first: Whether blocks are in the order linear, ReLU, batch norm, dropout instead.
        y_range: Range that a final sigmoid scales the outputs to.
        init: Whether linear layers are initialized as by fastai's `vision_learner` (He 2015); else as torch does.

    Raises:
        ValueError: If `ps` does not have one entry per linear layer, a probability is outside [0, 1), or a width is
            below 1.

    >>> [type(layer).__name__ for layer in create_head(512, 2)]  # doctest: +NORMALIZE_WHITESPACE
    ['AdaptiveConcatPool2d', 'Flatten', 'BatchNorm1d', 'Dropout', 'Linear', 'ReLU',
     'BatchNorm1d', 'Dropout', 'Linear']
    """
    widths = [nf * 2 if pool and concat_pool else nf, *([512] if lin_ftrs is None else lin_ftrs), n_out]
    if min(widths) < 1:
        raise ValueError(f"Expected `nf`, `lin_ftrs` and `n_out` to be at least 1, but got {nf}, {lin_ftrs}, {n_out}")
    n_layers = len(widths) - 1
    drops = _dropouts(ps, n_layers)

    layers: list[nn.Module] = []
    if pool:
        layers += [AdaptiveConcatPool2d() if concat_pool else nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if lin_first:
        layers += [nn.Dropout(drops[0])]
        for i in range(n_layers - 1):
            bn = first_bn if i == 0 else True
            layers += [nn.Linear(widths[i], widths[i + 1], bias=not bn), nn.ReLU(inplace=True)]
            layers += _bn_drop(widths[i + 1], bn, drops[i + 1])
        layers += [nn.Linear(widths[-2], n_out)]
    else:
        for i in range(n_layers):
            bn = first_bn if i == 0 else True
            layers += [*_bn_drop(widths[i], bn, drops[i]), nn.Linear(widths[i], widths[i + 1], bias=not bn)]
            if i < n_layers - 1:
                layers += [nn.ReLU(inplace=True)]
    if bn_final:
        layers += [nn.BatchNorm1d(n_out, momentum=0.01)]
    if y_range is not None:
        layers += [SigmoidRange(*y_range)]
    head = nn.Sequential(*layers)
    if init:
        init_head(head)
    return head


def split_pooling(head: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """Splits a head into its leading pooling and flatten layers, if any, and the rest.

    >>> [len(part) for part in split_pooling(create_head(512, 2))]
    [2, 7]
    """
    head = uncompiled(head)
    layers = [*head] if isinstance(head, nn.Sequential) else [head]
    if not layers or not _is_global_pooling(layers[0]):
        return [], layers
    count = 2 if isinstance(layers[1] if len(layers) > 1 else None, nn.Flatten) else 1
    return layers[:count], layers[count:]


def apply_pooling(head: nn.Module, x: Tensor) -> Tensor:
    """Applies the leading pooling and flatten layers of a head, if any, to a feature map `(b, c, h, w)`."""
    for layer in split_pooling(head)[0]:
        x = layer(x)
    return x


def apply_after_pooling(head: nn.Module, x: Tensor) -> Tensor:
    """Applies the layers of a head after those of `apply_pooling`.

    >>> import torch
    >>> head, x = create_head(8, 2).eval(), torch.rand(4, 8, 7, 7)
    >>> bool((apply_after_pooling(head, apply_pooling(head, x)) == head(x)).all())
    True
    """
    for layer in split_pooling(head)[1]:
        x = layer(x)
    return x


def _is_global_pooling(layer: nn.Module) -> bool:
    """Returns whether a layer pools a feature map to a single position."""
    if isinstance(layer, AdaptiveConcatPool2d):
        layer = layer.avg_pool
    return isinstance(layer, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)) and layer.output_size in (1, (1, 1), [1, 1])


def init_head(head: nn.Module) -> None:
    """Initializes linear and convolutional layers by `kaiming_normal_`, biases by 0; leaves normalization unchanged."""
    for module in head.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _dropouts(ps: float | Sequence[float], n_layers: int) -> list[float]:
    drops = [*ps] if isinstance(ps, Iterable) else [ps / 2] * (n_layers - 1) + [ps]
    if len(drops) != n_layers:
        raise ValueError(f"Expected `ps` to have {n_layers} entries, one a linear layer, but got {len(drops)}")
    if not all(0 <= p < 1 for p in drops):
        raise ValueError(f"Expected `ps` to be probabilities in [0, 1), but got {ps}")
    return drops


def _bn_drop(width: int, bn: bool, p: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    if bn:
        norm = nn.BatchNorm1d(width)
        nn.init.constant_(norm.bias, 1e-3)  # fastai's, so that no unit starts dead behind a ReLU
        layers.append(norm)
    return [*layers, nn.Dropout(p)] if p > 0 else layers

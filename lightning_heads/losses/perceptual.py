"""Perceptual losses: compare images by the feature maps of a pretrained encoder."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders import Encoder
from ..utils.modules import eval_mode
from ..utils.tensors import at_least_float32
from .ssim import check_shapes


class FeatureLoss(nn.Module):
    """Perceptual loss: compares images `(b, c, h, w)` in 0..1 by pixels and by an encoder's features (Johnson 2016).

    It is fastai's loss for super-resolution: the mean absolute difference of the normalized pixels, plus those of
    selected feature maps of `encoder.pyramid` times their weights, plus those of the maps' Gram matrices times their
    weights squared times `gram_weight`. The default weights are for VGG with batch normalization, whose maps are the
    inputs of its max-pool layers.

    Args:
        encoder: The encoder, which is frozen in place and always runs in evaluation mode. It takes as many channels
            as the images have.
        layers: Indices of the feature maps, 0 the finest; by default fastai's 2, 3 and 4.
        layer_weights: Weight of each of these maps; by default fastai's 5, 15 and 2.
        gram_weight: Weight of the Gram matrices.

    Raises:
        ValueError: If the encoder has no such map, layers and weights differ in number, or images differ in shape.

    >>> encoder = Encoder("resnet18", pretrained=False)
    >>> loss = FeatureLoss(encoder, layers=(1, 2), layer_weights=(5, 15))
    >>> loss(torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)) > 0
    tensor(True)
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        layers: Sequence[int] | None = None,
        layer_weights: Sequence[float] | None = None,
        gram_weight: float = 5e3,
    ) -> None:
        super().__init__()
        layers = (2, 3, 4) if layers is None else layers
        self.layer_weights = (5.0, 15.0, 2.0) if layer_weights is None else tuple(layer_weights)
        self.gram_weight = gram_weight
        _check_weights(layers, self.layer_weights)
        self.features = _FrozenFeatures(encoder, layers)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        check_shapes(outputs, target)
        with torch.no_grad():
            target_maps = self.features(target)
        normalized = self.features.encoder.normalized
        loss = F.l1_loss(normalized(at_least_float32(outputs)), normalized(at_least_float32(target.detach())))
        for weight, x, y in zip(self.layer_weights, self.features(outputs), target_maps, strict=True):
            loss = loss + weight * F.l1_loss(x, y)
            loss = loss + weight**2 * self.gram_weight * F.l1_loss(gram_matrix(x), gram_matrix(y))
        return loss


class StyleLoss(nn.Module):
    """Style transfer loss: compares images `(b, c, h, w)` in 0..1 to a target and a style picture (Johnson 2016).

    The content loss compares one feature map of `encoder.pyramid` to that of the target; the style loss compares the
    Gram matrices of several maps to those of the style picture. Each is the mean squared difference divided by the mean
    square of the reference, so that weights have a similar effect with any encoder. Total variation, the mean absolute
    difference of neighboring pixels, is added.

    Args:
        encoder: The encoder, which is frozen in place and always runs in evaluation mode.
        style: The style picture `(c, h, w)` in 0..1, of about the size of the images, or None if a state dict that is
            loaded later has its Gram matrices.
        layers: Indices of the feature maps of the style, 0 the finest; by default Johnson's 0, 1, 2 and 3.
        layer_weights: Weight of each of these maps; by default 1.
        content_layer: Index of the feature map of the content; by default the second to last of `layers`, Johnson's
            choice.
        style_weight: Weight of the style loss.
        smoothness_weight: Weight of the total variation.

    Raises:
        ValueError: If the encoder has no such map, layers and weights differ in number, or images differ in shape.
    """

    def __init__(
        self,
        encoder: Encoder,
        style: Tensor | None,
        *,
        layers: Sequence[int] | None = None,
        layer_weights: Sequence[float] | None = None,
        content_layer: int | None = None,
        style_weight: float = 1.0,
        smoothness_weight: float = 0.1,
    ) -> None:
        super().__init__()
        layers = (0, 1, 2, 3) if layers is None else (*layers,)
        self.layer_weights = (1.0,) * len(layers) if layer_weights is None else tuple(layer_weights)
        self.style_weight, self.smoothness_weight = style_weight, smoothness_weight
        _check_weights(layers, self.layer_weights)
        self.features = _FrozenFeatures(encoder, (layers[-2:][0] if content_layer is None else content_layer, *layers))
        for i, gram in enumerate(self._style_grams(style)):
            self.register_buffer(f"style_{i}", gram)

    @property
    def has_style(self) -> bool:
        """Whether the Gram matrices of the style are known, rather than NaN."""
        return not self.get_buffer("style_0").isnan().any()

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        check_shapes(outputs, target)
        with torch.no_grad():
            target_content, *_ = self.features(target)
        content, *maps = self.features(outputs)
        loss = _relative_error(content, target_content)
        for i, (weight, features) in enumerate(zip(self.layer_weights, maps, strict=True)):
            style = self.get_buffer(f"style_{i}").expand(len(features), -1, -1)
            loss = loss + self.style_weight * weight * _relative_error(gram_matrix(features), style)
        return loss + self.smoothness_weight * _total_variation(at_least_float32(outputs))

    def _style_grams(self, style: Tensor | None) -> list[Tensor]:
        if style is None:
            widths = [self.features.encoder.channels[i] for i in self.features.layers[1:]]
            return [torch.full((width, width), torch.nan) for width in widths]
        with torch.no_grad():
            return [gram_matrix(x)[0] for x in self.features(style[None])[1:]]


def gram_matrix(x: Tensor) -> Tensor:
    """Returns the Gram matrices `(b, c, c)` of feature maps `(b, c, h, w)`, divided by c·h·w, in float32 at least.

    >>> gram_matrix(torch.ones(1, 2, 3, 3))
    tensor([[[0.5000, 0.5000],
             [0.5000, 0.5000]]])
    """
    with torch.autocast(x.device.type, enabled=False):
        flat = at_least_float32(x).flatten(2)
        return flat @ flat.mT / (flat.shape[1] * flat.shape[2])


class _FrozenFeatures(nn.Module):
    """Selected feature maps of an encoder, in float32 at least; its parameters and running statistics are frozen."""

    def __init__(self, encoder: Encoder, layers: Sequence[int]) -> None:
        super().__init__()
        count = len(encoder.channels)
        if min(layers) < 0 or max(layers) >= count:
            raise ValueError(
                f"Expected the feature layers to be from 0 to {count - 1}, the maps of {encoder.meta.name}, but got "
                f"{[*layers]}"
            )
        self.encoder = encoder.requires_grad_(False)
        self.layers = tuple(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        # only here, since the trainer warns of modules in evaluation mode when it starts
        with eval_mode(self.encoder):
            maps = self.encoder.pyramid(x)
        return [at_least_float32(maps[i]) for i in self.layers]


def _check_weights(layers: Sequence[int], weights: Sequence[float]) -> None:
    if len(layers) == 0:
        raise ValueError("Expected at least one feature layer, but got none")
    if len(layers) != len(weights):
        raise ValueError(
            f"Expected the layer weights to have {len(layers)} entries, one a layer, but got {len(weights)}"
        )


def _relative_error(x: Tensor, reference: Tensor) -> Tensor:
    """Returns the mean squared error divided by the mean square of the reference."""
    return F.mse_loss(x, reference) / reference.square().mean()


def _total_variation(images: Tensor) -> Tensor:
    """Returns the mean absolute difference of horizontal neighbors plus that of vertical neighbors."""
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()

"""Encoder: maps images in 0..1 to feature maps `(b, c, h, w)` with any backbone."""

import inspect
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.arguments import Unpack
from ..utils.image_range import check_image_range, check_image_type
from ..utils.modules import eval_mode, uncompiled
from ..utils.plain import plain_values
from .build import build_backbone, create_model, in_channels_of, set_input
from .exportable import make_exportable
from .meta import EncoderMeta
from .surgery import ChannelPolicy
from .unused_parameters import drop_parameters, recorded_calls, unused_parameters
from .weights import load_weights


class BackboneArgs(TypedDict, total=False):
    """Arguments of `Encoder` that every model passes on to it."""

    channel_policy: ChannelPolicy
    normalize: bool
    mean: Sequence[float] | None
    std: Sequence[float] | None
    image_size: int | tuple[int, int] | None
    num_groups: int | None
    drop_path_rate: float
    channels_last: bool


class EncoderArgs(BackboneArgs, total=False):
    """Arguments of `Encoder` that models of its `forward` pass on to it."""

    hypercolumns: bool


class Encoder(nn.Module):
    """A pretrained backbone without its classifier, for images in 0..1.

    It normalizes its input by the statistics of its weights, and `forward` returns the last feature map as
    `(b, num_features, h, w)` whatever the backbone's layout. What the backbone's own classifier received beyond the
    map's average (a class token, attention pooling, the output of layers that some models keep inside their head) is
    appended to every position of that map, so that pooling recovers it and no pretrained layer is lost; with
    `readout=False` it is left out. With `hypercolumns` the pyramid's finer or shallower maps, average-pooled to the
    size of the last map, are concatenated before it, so that a head also receives texture and object parts: on images
    unlike those that the encoder was trained on, a head trained alone may do better with them (Hariharan 2015,
    Hypercolumns; Evci 2022, Head2Toe). `pyramid` returns one map per scale, with nothing appended.

    Args:
        name_or_module: A timm architecture (with or without a weight tag), a torchvision architecture
            (`torchvision/resnet50` where timm has the name too), or a model, whose classifier is then removed in place.
        pretrained: Whether an architecture given by name gets its pretrained weights, downloaded where needed.
        weights: A local file with the weights of the whole backbone under its own parameter names (safetensors or a
            state dict), in place of a download.
        in_channels: Channels of the images; by default the model's own, 3 for pretrained weights.
        channel_policy: How the first layer's filters are adapted if `in_channels` differs from the model's own; see
            `set_in_channels`.
        normalize: Whether to normalize the input.
        mean: Mean of each channel, in place of the weights' own.
        std: Standard deviation of each channel, in place of the weights' own.
        image_size: Height and width to build the backbone for, in pixels, if it accepts one size only.
        readout: Whether `forward` appends the input of the backbone's classifier, where that is more than the average.
        hypercolumns: Whether `forward` returns the maps of all scales or depths, concatenated at the last one's size.
        num_groups: Number of parameter groups, from 1 to the number of the backbone's blocks; by default two, as in
            fastai, or one if there is one block.
        drop_path_rate: Stochastic depth of a timm backbone (Huang 2016).
        channels_last: Whether to compute in channels-last memory format, in which convolutions run faster. Backbones
            for which a bug of oneDNN makes that unsafe stay in contiguous format (RepVGG, MobileOne, FastViT and
            similar).

    Raises:
        ValueError: If the architecture is unknown or lacks a part that an encoder needs, the weights do not fit, or
            `hypercolumns` is set and there is a single map.

    >>> encoder = Encoder("resnet18", pretrained=False)
    >>> encoder(torch.rand(1, 3, 64, 96)).shape
    torch.Size([1, 512, 2, 3])
    >>> [tuple(m.shape[1:]) for m in encoder.pyramid(torch.rand(1, 3, 64, 96))]
    [(64, 32, 48), (64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name_or_module: str | nn.Module,
        *,
        pretrained: bool = True,
        weights: str | Path | None = None,
        in_channels: int | None = None,
        channel_policy: ChannelPolicy = "fastai",
        normalize: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        image_size: int | tuple[int, int] | None = None,
        readout: bool = True,
        hypercolumns: bool = False,
        num_groups: int | None = None,
        drop_path_rate: float = 0.0,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(name_or_module, str):
            model = create_model(
                name_or_module,
                pretrained=pretrained and weights is None,
                image_size=image_size,
                drop_path_rate=drop_path_rate,
            )
            name: str | None = name_or_module
        else:
            model, name = uncompiled(name_or_module), None
        in_channels = in_channels_of(model) if in_channels is None else in_channels
        if weights is not None:
            load_weights(model, weights)
        if in_channels != in_channels_of(model):
            set_input(model, in_channels, channel_policy)
        self.backbone = build_backbone(
            model, name=name, image_size=image_size, in_channels=in_channels, readout=readout
        )
        make_exportable(self.backbone)
        self.meta = self.backbone.meta
        self.in_channels = in_channels
        self._num_shallower = _count_shallower_maps(self.meta) if hypercolumns else 0
        self._group_names = self.backbone.groups(num_groups)
        self._only_pyramid = False
        self._normalize = normalize
        self.register_buffer("mean", _per_channel("mean", self.meta.mean if mean is None else mean, in_channels))
        self.register_buffer("std", _per_channel("std", self.meta.std if std is None else std, in_channels))
        # not kept as a `torch.memory_format`, which `torch.save` cannot pickle
        self._channels_last = channels_last and not _breaks_in_channels_last(self.backbone)
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=self._memory_format)

    @property
    def num_features(self) -> int:
        """Channels of the output of `forward`."""
        return sum(self.channels[: self._num_shallower]) + self.meta.num_features + self.meta.readout_features

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map of `pyramid`."""
        return self.meta.channels

    @property
    def reductions(self) -> tuple[int, ...]:
        """Input height over map height of each map of `pyramid`."""
        return self.meta.reductions

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self._channels_last else torch.contiguous_format

    def forward(self, x: Tensor) -> Tensor:
        """Maps images in 0..1, `(b, in_channels, h, w)`, to the last feature map, `(b, num_features, h', w')`.

        With `hypercolumns` the pooled maps of the other scales or depths are concatenated before it.
        """
        if self._only_pyramid:
            raise RuntimeError(
                "Expected an encoder with all of its parameters, but `keep_pyramid` has dropped those that `pyramid` "
                "does not depend on; call `pyramid`, or build the encoder anew"
            )
        x = self._prepare(x)
        if not self._num_shallower:
            out: Tensor = self.backbone(x)
            return out
        last, maps = self.backbone.with_pyramid(x)
        size = last.shape[-2], last.shape[-1]
        return torch.cat([*(F.adaptive_avg_pool2d(m, size) for m in maps[: self._num_shallower]), last], dim=1)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Maps images in 0..1 to one feature map `(b, c, h', w')` per scale, from fine to coarse.

        A backbone of a single scale, such as a ViT, returns four maps of that scale, from shallow to deep.
        """
        return self.backbone.pyramid(self._prepare(x))

    def normalized(self, x: Tensor) -> Tensor:
        """Returns images in 0..1 normalized by `mean` and `std`, or unchanged if the encoder does not normalize."""
        return (x - self.mean) / self.std if self._normalize else x

    def check_range(self, x: Tensor) -> None:
        """Raises ValueError if images are not in about 0..1, or are integers; see `check_image_range`.

        If the encoder does not normalize, or by a mean or standard deviation above 1, the units of its images are the
        user's own, and only their type is checked.
        """
        check_image_type(x)
        if self._normalize and bool(torch.cat([self.mean, self.std]).abs().max() <= 1):
            advice = ", and leave their normalization to the encoder, or pass it `mean` and `std` in their units"
            check_image_range(x, advice=advice)

    def keep_pyramid(self) -> None:
        """Drops the parameters that `pyramid` does not depend on, in place; `forward` raises from then on."""
        parameter = next(self.parameters())
        x = torch.zeros(1, self.in_channels, *self.meta.input_size, device=parameter.device, dtype=parameter.dtype)
        with eval_mode(self), torch.enable_grad(), recorded_calls(self.backbone) as called:
            unused = {*unused_parameters(self.backbone, *self.pyramid(x))}
        drop_parameters(self.backbone, unused, called)
        kept = [[name for name in group if name not in unused] for group in self._group_names]
        self._group_names = [group for group in kept if group]
        self._only_pyramid = True

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameters from the input side to the output side, each in exactly one group."""
        parameters = dict(self.backbone.named_parameters())
        return [[parameters[name] for name in names] for names in self._group_names]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Enables or disables recomputing activations in the backward pass, which trades time for memory (Chen 2016).

        Raises:
            ValueError: If the backbone does not support it.
        """
        self.backbone.set_grad_checkpointing(enable)

    def _prepare(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"Expected images (b, {self.in_channels}, h, w), but got {tuple(x.shape)}; the model's `in_channels` "
                "and the data's `channels` must be equal"
            )
        check_image_type(x)
        if self.meta.fixed_size and tuple(x.shape[-2:]) != self.meta.input_size:
            height, width = self.meta.input_size
            raise ValueError(
                f"Expected images of {height}x{width}, the one size that {self.meta.name} was built for, but got "
                f"{x.shape[-2]}x{x.shape[-1]}; pass `image_size` to the encoder or resize the images"
            )
        if self.meta.multiple > 1 and any(side % self.meta.multiple for side in x.shape[-2:]):
            raise ValueError(
                f"Expected images whose height and width are multiples of {self.meta.multiple}, as {self.meta.name} "
                f"takes no others, but got {x.shape[-2]}x{x.shape[-1]}; resize, pad or crop the images"
            )
        x = self.normalized(x).contiguous(memory_format=self._memory_format)
        if self.in_channels == 1 and self._channels_last:
            # with one channel the strides fit both memory formats, and convolutions would assume the contiguous one
            x = x.squeeze(1).unsqueeze(-1).permute(0, 3, 1, 2)
        return x


def as_encoder(
    encoder: str | Encoder,
    *,
    pretrained: bool,
    weights: str | Path | None,
    in_channels: int | None,
    readout: bool,
    **backbone: Unpack[EncoderArgs],
) -> Encoder:
    """Returns an encoder as it is, or builds one from its name.

    Raises:
        ValueError: If an encoder is given together with arguments for building one.
    """
    if isinstance(encoder, str):
        return Encoder(
            encoder, pretrained=pretrained, weights=weights, in_channels=in_channels, readout=readout, **backbone
        )
    arguments = {"weights": weights, "in_channels": in_channels, **backbone}
    declared = inspect.signature(Encoder).parameters
    if given := [name for name, value in arguments.items() if plain_values(value) != declared[name].default]:
        raise ValueError(
            f"Expected `{given[0]}` with an encoder's name, but got it with an `Encoder`: pass it to `Encoder` instead"
        )
    return encoder


def check_images(model: nn.Module, *inputs: Tensor) -> None:
    """Checks the range of those inputs of a model that are images, if its attribute `encoder` is an `Encoder`.

    So are those of an `nn.Sequential` that begins with such a model or an `Encoder`. Other models and inputs, such as
    numbers beside the images, are not checked.

    Raises:
        ValueError: If images are not in about 0..1; see `Encoder.check_range`.
    """
    first = uncompiled(model)
    while isinstance(first, nn.Sequential) and len(first):
        first = uncompiled(first[0])
    encoder = first if isinstance(first, Encoder) else uncompiled(getattr(first, "encoder", None))
    if isinstance(encoder, Encoder):
        for x in inputs:
            if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] == encoder.in_channels:
                encoder.check_range(x)


def _count_shallower_maps(meta: EncoderMeta) -> int:
    """Returns how many maps of the pyramid, from the finest on, precede the last feature map.

    A coarsest map of as many channels as the last feature map is that map itself, before its normalization.
    """
    count = len(meta.channels) - (meta.channels[-1:] == (meta.num_features,))
    if not count:
        raise ValueError(
            f"Expected {meta.name} to give maps of at least two scales or depths for `hypercolumns`, but it gives "
            f"{len(meta.channels)}"
        )
    return count


def _breaks_in_channels_last(model: nn.Module) -> bool:
    """Tells whether a strided 1x1 convolution has fewer than the 16 input channels that oneDNN takes at a time.

    In channels-last format oneDNN then writes the gradient of its weights out of bounds (uxlfoundation/oneDNN#6035).
    """
    return any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.groups == 1
        and module.in_channels < 16
        for module in model.modules()
    )


def _per_channel(name: str, values: Sequence[float], n: int) -> Tensor:
    """Adapts three values to n channels: a single channel, and each beyond the third, takes their mean."""
    values = [float(value) for value in values]
    average = sum(values) / len(values)
    if len(values) not in (n, 3):
        raise ValueError(f"Expected `{name}` to have {n} values, one a channel, but got {len(values)}")
    fitted = [average] if n == 1 else [*values[:n], *islice(cycle([average]), max(n - len(values), 0))]
    return torch.tensor(fitted).view(1, n, 1, 1)

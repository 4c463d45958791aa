"""A U-Net on any encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ...encoders import Encoder, as_encoder
from ...layers import Activation, Norm, SigmoidRange, UpsampleMethod
from .fastai_decoder import FastaiDecoder
from .light_decoder import LastCross, LightDecoder
from .pyramid import CompletePyramid

_DECODERS: dict[str, Callable[..., nn.Module]] = {"light": LightDecoder, "fastai": FastaiDecoder}


class DynamicUnet(nn.Module):
    """A U-Net that builds itself: maps images in 0..1, `(b, c, h, w)`, to `(b, num_outputs, h, w)`.

    Height and width are any that the encoder takes; where it has to, the default decoder pads them. The decoder stands
    on `encoder.pyramid`: an encoder given as a module loses what that does not need, in place. `decoder="light"`, the
    default, costs a fifth of fastai's on a resnet34; `decoder="fastai"` has the layers of fastai's `DynamicUnet`, whose
    weights `load_fastai_unet` reads. What is None below is as the decoder has it:

    | | light | fastai |
    |---|---|---|
    | `upsample` | bilinear | pixel_shuffle |
    | `norm` | batch | none |
    | `max_width` | 256 | none |

    Args:
        encoder: An architecture's name, or an encoder.
        num_outputs: Channels of the output.
        pretrained: Whether an encoder given by name gets its pretrained weights.
        weights: A local file with those weights.
        decoder: Which decoder.
        upsample: How maps are doubled: bilinearly after a 1x1 convolution, or by `PixelShuffleICNR`.
        blur: Whether pixel shuffles blur.
        blur_final: Whether the last of them does, where `blur` holds.
        self_attention: Whether the third stage from the end has self-attention.
        last_cross: Where the image itself joins: at `full` resolution, in blocks of 2x2 pixels at `half`, or `none`.
        bottle: Whether the last convolutions are half as wide inside.
        y_range: Range that the outputs are squashed into.
        act: Activation.
        norm: Normalization of the decoder's convolutions.
        max_width: Most channels of a decoder's stage.
        in_channels: Channels of the images, where the encoder is given by name.
        image_size: Size that a backbone of fixed size is built for, likewise.
        drop_path_rate: Stochastic depth of a timm backbone, likewise.

    Raises:
        ValueError: If the encoder has no map finer than its last to connect to, or options contradict one another.

    >>> import torch
    >>> DynamicUnet("resnet18", 21, pretrained=False)(torch.rand(1, 3, 97, 131)).shape
    torch.Size([1, 21, 97, 131])
    """

    num_inputs = 1

    def __init__(
        self,
        encoder: str | Encoder,
        num_outputs: int,
        *,
        pretrained: bool = True,
        weights: str | Path | None = None,
        decoder: Literal["light", "fastai"] = "light",
        upsample: UpsampleMethod | None = None,
        blur: bool = False,
        blur_final: bool = True,
        self_attention: bool = False,
        last_cross: LastCross = "full",
        bottle: bool = False,
        y_range: tuple[float, float] | None = None,
        act: Activation = "relu",
        norm: Norm | None = None,
        max_width: int | None = None,
        in_channels: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if num_outputs < 1:
            raise ValueError(f"Expected `num_outputs` to be at least 1, but got {num_outputs}")
        if decoder not in _DECODERS:
            raise ValueError(f"Expected `decoder` to be {' or '.join(_DECODERS)}, but got {decoder!r}")
        if last_cross not in ("full", "half", "none"):
            raise ValueError(f"Expected `last_cross` to be full, half or none, but got {last_cross!r}")
        encoder = as_encoder(
            encoder,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
            readout=False,
        )
        self.pyramid = CompletePyramid(encoder)
        # fastai's maps keep the sizes that they have
        self.multiple = self.pyramid.multiple if decoder == "light" or self.pyramid.reassemble else 1
        own = {"upsample": upsample, "norm": norm, "max_width": max_width}
        self.decoder = _DECODERS[decoder](
            self.pyramid.channels,
            self.pyramid.reductions,
            encoder.in_channels,
            num_outputs,
            blur=blur,
            blur_final=blur_final,
            self_attention=self_attention,
            last_cross=last_cross,
            bottle=bottle,
            act=act,
            **{key: value for key, value in own.items() if value is not None},
        )
        self.activation = nn.Identity() if y_range is None else SigmoidRange(*y_range)

    @property
    def encoder(self) -> Encoder:
        """The encoder, of which the pyramid is left."""
        return self.pyramid.encoder

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.multiple > 1:
            x = _padded(x, self.multiple)
        maps = self.pyramid(x)
        out: Tensor = self.activation(self.decoder(self.encoder.normalized(x), maps))
        return out[..., :height, :width]

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the encoder's groups, then the decoder."""
        groups = self.encoder.param_groups()
        grouped = {parameter for group in groups for parameter in group}
        return [*groups, [parameter for parameter in self.parameters() if parameter not in grouped]]


def _padded(x: Tensor, multiple: int) -> Tensor:
    height, width = x.shape[-2:]
    # as multiples, whose halves an export with dynamic sizes knows to be exact
    rows, columns = ((side + multiple - 1) // multiple * multiple for side in (height, width))
    return F.pad(x, (0, columns - width, 0, rows - height), mode="replicate")

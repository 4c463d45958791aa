"""A U-Net on any encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from ...encoders import Encoder, as_encoder
from ...encoders.encoder import BackboneArgs
from ...layers import Activation, Norm, SigmoidRange, UpsampleMethod, crop, pad_to_multiple
from ...utils.arguments import Unpack, forwards
from .fastai_decoder import FastaiDecoder
from .light_decoder import LastCross, LightDecoder
from .pyramid import CompletePyramid

_DECODERS: dict[str, Callable[..., nn.Module]] = {"light": LightDecoder, "fastai": FastaiDecoder}


class UnetArgs(BackboneArgs, total=False):
    """Arguments of `DynamicUnet` that tasks pass on to it."""

    decoder: Literal["light", "fastai"]
    upsample: UpsampleMethod | None
    blur: bool
    blur_final: bool
    self_attention: bool
    last_cross: LastCross
    bottle: bool
    act: Activation
    norm: Norm | None
    max_width: int | None


@forwards(BackboneArgs, to=Encoder)
class DynamicUnet(nn.Module):
    """A U-Net on any encoder: maps images in 0..1, `(b, c, h, w)`, to `(b, num_outputs, h, w)`.

    Height and width are any that the encoder takes; with the default decoder, images are padded where needed. The
    decoder uses the maps of `encoder.pyramid`: from an encoder given as a module, parameters that these do not depend
    on are dropped in place. `decoder="light"`, the default, costs a fifth of fastai's on a resnet34; `decoder="fastai"`
    has the layers of fastai's `DynamicUnet`, whose weights `load_fastai_unet` reads. `upsample`, `norm` and `max_width`
    have defaults of their own for each decoder.

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too; or an `Encoder`.
        num_outputs: Channels of the output.
        pretrained: Whether an encoder given by name gets its pretrained weights, downloaded where needed.
        weights: Local file with the weights of an encoder given by name, in place of a download.
        decoder: Decoder of the U-Net: `light`, or `fastai` with the layers of fastai's `DynamicUnet`.
        upsample: How maps are upsampled: `bilinear` after a 1x1 convolution, by default with the light decoder, or by
            `pixel_shuffle` with ICNR initialization, by default with fastai's.
        blur: Whether pixel shuffles blur: each pixel is averaged with its neighbors above and to the left (Sugawara
            2018).
        blur_final: Whether `blur` applies to the last stage too.
        self_attention: Whether the third stage from the end has self-attention.
        last_cross: Where the decoder uses the pixels of the image itself: at `full` resolution, at `half` resolution as
            2x2 blocks, or nowhere (`none`).
        bottle: Whether the inner channels of the decoder's last block are halved.
        y_range: Range that a final sigmoid scales the outputs to.
        act: Activation of the decoder.
        norm: Normalization of the decoder's convolutions; by default `batch` with the light decoder, `none` with
            fastai's.
        max_width: Maximum number of channels of a decoder's stage; by default 256 with the light decoder, unlimited
            with fastai's.
        in_channels: Channels of the images, if the encoder is given by name; by default the architecture's own, 3 for
            pretrained weights.

    Raises:
        ValueError: If the encoder has only one map, so that there are no skip connections, or options contradict each
            other.

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
        **backbone: Unpack[BackboneArgs],
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
            readout=False,
            hypercolumns=False,
            **backbone,
        )
        self.pyramid = CompletePyramid(encoder)
        # fastai's decoder does not pad, but resizes to the size of each skip connection
        self.multiple = self.pyramid.multiple if decoder == "light" or self.pyramid.reassemble else 1
        given = {"upsample": upsample, "norm": norm, "max_width": max_width}
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
            **{key: value for key, value in given.items() if value is not None},
        )
        self.activation = nn.Identity() if y_range is None else SigmoidRange(*y_range)

    @property
    def encoder(self) -> Encoder:
        """The encoder, without parameters that its pyramid does not depend on."""
        return self.pyramid.encoder

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        if self.multiple > 1:
            x = pad_to_multiple(x, self.multiple)
        maps = self.pyramid(x)
        out: Tensor = self.activation(self.decoder(self.encoder.normalized(x), maps))
        return crop(out, size) if self.multiple > 1 else out

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameter groups of the encoder, then one of the decoder."""
        groups = self.encoder.param_groups()
        grouped = {parameter for group in groups for parameter in group}
        return [*groups, [parameter for parameter in self.parameters() if parameter not in grouped]]

"""Dense prediction without skip connections."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders import Encoder, as_encoder
from ..encoders.encoder import BackboneArgs
from ..heads.dense import DenseUpsample, create_dense_head
from ..utils.arguments import Unpack, forwards


@forwards(BackboneArgs, to=Encoder)
class DenseModel(nn.Module):
    """An encoder with a head that upsamples its last feature map, for dense prediction without skip connections.

    Maps images in 0..1, `(b, c, h, w)`, to `(b, num_outputs, h, w)`. Unlike in `DynamicUnet`, the finer feature maps of
    the encoder are not used. The output is resized to the image if the encoder's stride does not divide its size.

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too; or an `Encoder`.
        num_outputs: Channels of the output.
        pretrained: Whether an encoder given by name gets its pretrained weights, downloaded where needed.
        weights: Local file with the weights of an encoder given by name, in place of a download.
        upsample: How each stage doubles the size: by `nearest` or `bilinear` interpolation before its convolution, by
            a `transposed` convolution, or by `pixel_shuffle`.
        width: Channels of the first stage; each further one has half of them, 16 at least.
        y_range: Range that a final sigmoid scales the outputs to.
        in_channels: Channels of the images, if the encoder is given by name; by default the architecture's own, 3 for
            pretrained weights.

    >>> import torch
    >>> DenseModel("resnet18", 2, pretrained=False, upsample="nearest")(torch.rand(1, 3, 97, 131)).shape
    torch.Size([1, 2, 97, 131])
    """

    num_inputs = 1

    def __init__(
        self,
        encoder: str | Encoder,
        num_outputs: int,
        *,
        pretrained: bool = True,
        weights: str | Path | None = None,
        upsample: DenseUpsample = "nearest",
        width: int = 256,
        y_range: tuple[float, float] | None = None,
        in_channels: int | None = None,
        **backbone: Unpack[BackboneArgs],
    ) -> None:
        super().__init__()
        encoder = as_encoder(
            encoder,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            readout=True,
            hypercolumns=False,
            **backbone,
        )
        self.encoder = encoder
        reduction = max(encoder.reductions) if encoder.reductions else 1
        self.head = create_dense_head(
            encoder.num_features, num_outputs, reduction, upsample=upsample, width=width, y_range=y_range
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(x))
        # an export resizes always, as comparing the sizes would fix whether they are equal
        if torch.compiler.is_exporting() or out.shape[-2:] != x.shape[-2:]:
            out = F.interpolate(out, x.shape[-2:], mode="nearest")
        return out

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameter groups of the encoder, then one of the head."""
        return [*self.encoder.param_groups(), [*self.head.parameters()]]

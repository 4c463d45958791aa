"""A map out of an encoder without skips."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders import Encoder, as_encoder
from ..heads.dense import DenseUpsample, create_dense_head


class DenseModel(nn.Module):
    """An encoder with a head that enlarges its last map: `(b, c, h, w)` in 0..1 to `(b, num_outputs, h, w)`.

    It has no connections from the encoder's finer maps, which is what a `DynamicUnet` adds. The output is resized to
    the image where the encoder's stride does not divide it.

    Args:
        encoder: An architecture's name, or an encoder.
        num_outputs: Channels of the output.
        pretrained: Whether an encoder given by name gets its pretrained weights.
        weights: A local file with those weights.
        upsample: How each stage doubles the map; see `create_dense_head`.
        width: Channels of the first stage; each further one has half of them, 16 at least.
        y_range: Range that the outputs are squashed into.
        in_channels: Channels of the images, where the encoder is given by name.
        image_size: Size that a backbone of fixed size is built for, likewise.
        drop_path_rate: Stochastic depth of a timm backbone, likewise.

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
        image_size: int | tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        encoder = as_encoder(
            encoder,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
            readout=True,
        )
        self.encoder = encoder
        reduction = max(encoder.reductions) if encoder.reductions else 1
        self.head = create_dense_head(
            encoder.num_features, num_outputs, reduction, upsample=upsample, width=width, y_range=y_range
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(x))
        return F.interpolate(out, x.shape[-2:], mode="nearest") if out.shape[-2:] != x.shape[-2:] else out

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the encoder's groups, then the head."""
        return [*self.encoder.param_groups(), [*self.head.parameters()]]

"""One image in, one vector out."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from ..encoders import Encoder, as_encoder
from ..heads.pooled import create_head, split_pooling


class ImageModel(nn.Module):
    """An encoder with a head: maps images in 0..1, `(b, c, h, w)`, to `(b, num_outputs)`.

    Args:
        encoder: An architecture's name, or an encoder.
        num_outputs: Outputs of the head.
        pretrained: Whether an encoder given by name gets its pretrained weights.
        weights: A local file with those weights.
        head: A head of your own, from `(b, encoder.num_features, h, w)` to `(b, num_outputs)`, in place of fastai's.
        lin_ftrs: Widths of the head's hidden layers; see `create_head`.
        ps: Dropout probabilities of the head.
        concat_pool: Whether the head pools by maximum and average, or by average alone.
        y_range: Range that the outputs are squashed into.
        in_channels: Channels of the images, where the encoder is given by name.
        image_size: Size that a backbone of fixed size is built for, likewise.
        drop_path_rate: Stochastic depth of a timm backbone, likewise.
        hypercolumns: Whether the head sees the maps of all scales, likewise; see `Encoder`.
    """

    num_inputs = 1

    def __init__(
        self,
        encoder: str | Encoder,
        num_outputs: int,
        *,
        pretrained: bool = True,
        weights: str | Path | None = None,
        head: nn.Module | None = None,
        lin_ftrs: Sequence[int] | None = None,
        ps: float | Sequence[float] = 0.5,
        concat_pool: bool = True,
        y_range: tuple[float, float] | None = None,
        in_channels: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
        hypercolumns: bool = False,
    ) -> None:
        super().__init__()
        if num_outputs < 1:
            raise ValueError(f"Expected `num_outputs` to be at least 1, but got {num_outputs}")
        encoder = as_encoder(
            encoder,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
            readout=True,
            hypercolumns=hypercolumns,
        )
        self.encoder = encoder
        if head is None:
            width = encoder.num_features
            head = create_head(width, num_outputs, lin_ftrs, ps, concat_pool=concat_pool, y_range=y_range)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(x))
        return out

    def features(self, x: Tensor) -> Tensor:
        """Maps images in 0..1, `(b, c, h, w)`, to what the head's first layer with parameters sees, pooled."""
        x = self.encoder(x)
        for layer in split_pooling(self.head)[0]:
            x = layer(x)
        return x

    def from_features(self, x: Tensor) -> Tensor:
        """Maps features to outputs `(b, num_outputs)`."""
        for layer in split_pooling(self.head)[1]:
            x = layer(x)
        return x

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the encoder's groups, then the head."""
        return [*self.encoder.param_groups(), [*self.head.parameters()]]

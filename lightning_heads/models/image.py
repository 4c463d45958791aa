"""Model of an encoder and a head that maps an image to a vector."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from ..encoders import Encoder, as_encoder
from ..encoders.encoder import EncoderArgs
from ..heads.pooled import apply_after_pooling, apply_pooling, create_head
from ..utils.arguments import Unpack, forwards


class ImageModelArgs(EncoderArgs, total=False):
    """Arguments of `ImageModel` that tasks pass on to it."""

    lin_ftrs: Sequence[int] | None
    ps: float | Sequence[float]
    concat_pool: bool


@forwards(EncoderArgs, to=Encoder)
class ImageModel(nn.Module):
    """An encoder with a head: maps images in 0..1, `(b, c, h, w)`, to `(b, num_outputs)`.

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too; or an `Encoder`.
        num_outputs: Outputs of the head.
        pretrained: Whether an encoder given by name gets its pretrained weights, downloaded where needed.
        weights: Local file with the weights of an encoder given by name, in place of a download.
        head: A head of your own, from `(b, encoder.num_features, h, w)` to `(b, num_outputs)`, in place of fastai's.
        lin_ftrs: Widths of the head's hidden layers; by default one of 512.
        ps: Dropout probability before each linear layer of the head, or that of the last layer, with half of it for the
            others.
        concat_pool: Whether the head pools by maximum and average both, or by average alone.
        y_range: Range that a final sigmoid scales the outputs to.
        in_channels: Channels of the images, if the encoder is given by name; by default the architecture's own, 3 for
            pretrained weights.
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
        **backbone: Unpack[EncoderArgs],
    ) -> None:
        super().__init__()
        if num_outputs < 1:
            raise ValueError(f"Expected `num_outputs` to be at least 1, but got {num_outputs}")
        encoder = as_encoder(
            encoder,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            readout=True,
            **backbone,
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
        """Maps images in 0..1, `(b, c, h, w)`, to features, pooled by the head's leading layers if it has such."""
        return apply_pooling(self.head, self.encoder(x))

    def from_features(self, x: Tensor) -> Tensor:
        """Maps features to outputs `(b, num_outputs)`."""
        return apply_after_pooling(self.head, x)

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameter groups of the encoder, then one of the head."""
        return [*self.encoder.param_groups(), [*self.head.parameters()]]

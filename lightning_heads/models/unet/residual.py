"""A U-Net that restores its input."""

import torch
from torch import Tensor, nn

from ...encoders import Encoder
from .unet import DynamicUnet


class ResidualUnet(nn.Module):
    """Adds to an image `(b, c, h, w)` what a U-Net makes of it, times a gain of each channel that begins at 0.

    A start from images that are nearly right: the identity at first (Bachlechner 2020, ReZero), it learns the
    difference (Kim 2016).

    Args:
        unet: The U-Net.
        num_outputs: Its output's channels; an image of one channel is added to each of them.

    Raises:
        ValueError: If the U-Net takes images of another number of channels.
    """

    num_inputs = 1

    def __init__(self, unet: DynamicUnet, num_outputs: int) -> None:
        super().__init__()
        if unet.encoder.in_channels not in (1, num_outputs):
            raise ValueError(
                f"Expected `residual` with inputs of {num_outputs} channels, as the outputs, or one, but got "
                f"{unet.encoder.in_channels}"
            )
        self.unet = unet
        self.gain = nn.Parameter(torch.zeros(num_outputs, 1, 1))

    @property
    def encoder(self) -> Encoder:
        """The U-Net's encoder."""
        return self.unet.encoder

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.gain * self.unet(x)
        return out

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the U-Net's groups, the gain in the last."""
        *groups, decoder = self.unet.param_groups()
        return [*groups, [*decoder, self.gain]]

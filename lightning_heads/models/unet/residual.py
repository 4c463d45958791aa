"""A U-Net that predicts the difference from its input."""

import torch
from torch import Tensor, nn

from ...encoders import Encoder
from .unet import DynamicUnet


class ResidualUnet(nn.Module):
    """Adds the output of a U-Net, times a learned gain per channel that starts at 0, to its input `(b, c, h, w)`.

    For inputs that are close to their targets: it is the identity at first (Bachlechner 2020, ReZero) and learns the
    difference (Kim 2016).

    Args:
        unet: The U-Net.
        num_outputs: Channels of its output; an image of one channel is added to each of them.

    Raises:
        ValueError: If the U-Net takes images of another number of channels.
    """

    num_inputs = 1

    def __init__(self, unet: DynamicUnet, num_outputs: int) -> None:
        super().__init__()
        if unet.encoder.in_channels not in (1, num_outputs):
            raise ValueError(
                f"Expected inputs of {num_outputs} channels, as the outputs have, or of one with `residual`, but got "
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
        """Returns the parameter groups of the U-Net, with the gain in the last one."""
        *groups, decoder = self.unet.param_groups()
        return [*groups, [*decoder, self.gain]]

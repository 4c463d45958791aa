"""Small layers that heads and decoders are made of."""

from .attention import SelfAttention
from .convolution import Activation, Norm, activation, conv_layer, convolve_joined, norm_layer
from .padding import crop, pad_to_multiple
from .pixel_blocks import from_blocks, to_blocks
from .pooling import AdaptiveConcatPool2d
from .sigmoid_range import SigmoidRange
from .upsampling import Blur, PixelShuffleICNR, Upsample, UpsampleMethod, icnr_

__all__ = [
    "Activation",
    "AdaptiveConcatPool2d",
    "Blur",
    "Norm",
    "PixelShuffleICNR",
    "SelfAttention",
    "SigmoidRange",
    "Upsample",
    "UpsampleMethod",
    "activation",
    "conv_layer",
    "convolve_joined",
    "crop",
    "from_blocks",
    "icnr_",
    "norm_layer",
    "pad_to_multiple",
    "to_blocks",
]

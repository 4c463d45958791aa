"""Models: an encoder with a head or decoder, as plain `nn.Module`s."""

from .dense import DenseModel
from .image import ImageModel
from .siamese import SiameseModel
from .unet.unet import DynamicUnet

__all__ = ["DenseModel", "DynamicUnet", "ImageModel", "SiameseModel"]

"""Models: an encoder with what a task puts on it, as plain `nn.Module`s."""

from .dense import DenseModel
from .fastai_weights import load_fastai_unet
from .image import ImageModel
from .siamese import SiameseModel
from .unet import DynamicUnet

__all__ = ["DenseModel", "DynamicUnet", "ImageModel", "SiameseModel", "load_fastai_unet"]

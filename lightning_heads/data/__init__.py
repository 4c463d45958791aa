"""Data modules: real files in, batches of inputs and targets out."""

from .augment import AugTransforms
from .image_data import ImageData
from .image_folder import ImageFolderData
from .image_table import ImageTableData
from .loader import SeededLoader
from .read import ImageReadError, read_image, verify_images

__all__ = [
    "AugTransforms",
    "ImageData",
    "ImageFolderData",
    "ImageReadError",
    "ImageTableData",
    "SeededLoader",
    "read_image",
    "verify_images",
]

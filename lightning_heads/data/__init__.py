"""Data modules: real files in, batches of inputs and targets out."""

from .augment import AugTransforms
from .class_batches import ClassBatches
from .degrade import Crappify, Degradation, Downscale, Grey, Noise
from .embedding_index import EmbeddingIndex
from .image_data import ImageData
from .image_folder import ImageFolderData
from .image_table import ImageTableData
from .loader import SeededLoader
from .mask import MaskReadError, mask_values, read_mask
from .mask_codes import MaskCodes
from .mask_data import MaskData
from .mask_folder import MaskFolderData
from .mask_table import MaskTableData
from .pair_data import PairData
from .pair_folder import PairFolderData
from .pair_table import PairTableData
from .read import ImageReadError, read_image, verify_images
from .restoration import RestorationData

__all__ = [
    "AugTransforms",
    "ClassBatches",
    "Crappify",
    "Degradation",
    "Downscale",
    "EmbeddingIndex",
    "Grey",
    "ImageData",
    "ImageFolderData",
    "ImageReadError",
    "ImageTableData",
    "MaskCodes",
    "MaskData",
    "MaskFolderData",
    "MaskReadError",
    "MaskTableData",
    "Noise",
    "PairData",
    "PairFolderData",
    "PairTableData",
    "RestorationData",
    "SeededLoader",
    "mask_values",
    "read_image",
    "read_mask",
    "verify_images",
]

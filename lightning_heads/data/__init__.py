"""Data modules, data sets and transforms that turn files into batches of inputs and targets."""

from .embedding_index import EmbeddingIndex
from .images.datamodule import ImageData
from .images.folder import ImageFolderData
from .images.opening import ImageReadError
from .images.reading import read_image, verify_images
from .images.table import ImageTableData
from .loading.class_batches import ClassBatches
from .loading.seeded_loader import SeededLoader
from .masks.codes import MaskCodes
from .masks.datamodule import MaskData
from .masks.folder import MaskFolderData
from .masks.reading import MaskReadError, mask_values, read_mask
from .masks.table import MaskTableData
from .pairs.datamodule import PairData
from .pairs.folder import PairFolderData
from .pairs.table import PairTableData
from .restoration.datamodule import RestorationData
from .transforms.augment import AugTransforms
from .transforms.degrade import Crappify, Degradation, Downscale, Grayscale, Noise

__all__ = [
    "AugTransforms",
    "ClassBatches",
    "Crappify",
    "Degradation",
    "Downscale",
    "EmbeddingIndex",
    "Grayscale",
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

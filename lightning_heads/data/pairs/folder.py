"""Pairs of images that lie in one folder a class."""

from pathlib import Path

from ...utils.arguments import Unpack, forwards
from ..images.folder import class_folders, class_samples
from ..samples.split_folders import split_folders
from .datamodule import PairData, PairDataArgs


@forwards(PairDataArgs, to=PairData)
class PairFolderData(PairData):
    """Pairs of images in one folder a class: `root/train/<class>/*` and `root/valid/<class>/*`, or `root/<class>/*`.

    Without a validation folder, a share of the images is set aside, seeded and stratified by class. Validation and test
    may be of other classes than training, such as persons that a model has not met.

    Args:
        root: The folder.

    Raises:
        FileNotFoundError: If there is no such folder or list, or an image of a list is missing.
        ValueError: If there are no images, or no pairs of them; see `PairData`.
    """

    def __init__(
        self,
        root: str | Path,
        **pairing: Unpack[PairDataArgs],
    ) -> None:
        root = Path(root)
        folders = split_folders(root)
        image_classes = sorted({name for folder in folders.values() for name in class_folders(folder)})
        super().__init__(
            {split: class_samples(folder, image_classes) for split, folder in folders.items()},
            image_classes,
            root,
            **pairing,
        )

"""Data module of pairs of images that lie in one folder per class."""

from pathlib import Path

from ...utils.arguments import Unpack, forwards
from ..images.folder import class_folders, class_samples
from ..samples.split_folders import split_folders
from .datamodule import PairData, PairDataArgs


@forwards(PairDataArgs, to=PairData)
class PairFolderData(PairData):
    """Pairs of images in class folders: `root/train/<class>/*` and `root/valid/<class>/*`, or `root/<class>/*`.

    Without a folder for validation or test, that fraction of the training images is held out, seeded and stratified by
    class. Validation and test may have other classes than training, such as persons that the model has not seen.

    Args:
        root: Folder that contains the folders of the splits, or of the classes.

    Raises:
        FileNotFoundError: If the folder, a csv file, or an image that it lists is missing.
        ValueError: If there are no images, or no pairs can be drawn from them; see `PairData`.
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

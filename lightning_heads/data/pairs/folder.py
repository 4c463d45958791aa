"""Data module of pairs of images that lie in one folder per class."""

from pathlib import Path

from ...utils.arguments import Unpack, forwards
from ..images.folder import class_folders, class_samples, class_split_folders
from ..images.reading import find_images, warn_left_out
from ..samples.samples import log_found
from ..samples.split_folders import check_siblings
from .datamodule import PairData, PairDataArgs
from .listed import read_pair_list


@forwards(PairDataArgs, to=PairData)
class PairFolderData(PairData):
    """Pairs of images in class folders: `root/train/<class>/*` and `root/valid/<class>/*`, or `root/<class>/*`.

    Folders of splits may also be called `training`, `validation`, `val`, `dev` and `testing`, in any case. If `root`
    has folders of other names too, and none has folders in it, each is a class, whatever its name. Without a folder for
    validation or test, that fraction of the training images is held out, seeded and stratified by class. Validation and
    test may have other classes than training, such as persons that the model has not seen.

    Args:
        root: Folder that contains the folders of the splits, or of the classes.

    Raises:
        FileNotFoundError: If the folder, a csv file, or an image that it lists is missing.
        ValueError: If there are no images, or no pairs can be drawn from them (see `PairData`); if other folders of
            images lie beside those of the splits, or the folders of splits lie in a folder of `root`.
    """

    def __init__(
        self,
        root: str | Path,
        **pairing: Unpack[PairDataArgs],
    ) -> None:
        root = Path(root)
        splits = class_split_folders(root)
        predict_pairs = pairing.get("predict_pairs")
        listed = (
            {} if predict_pairs is None else read_pair_list(Path(predict_pairs), root, "predict_pairs", labeled=False)
        )
        check_siblings(splits, find_images, [path for part in listed.values() for pair in part for path in pair.paths])
        image_classes = sorted(
            {name for folder in (splits or {"train": root}).values() for name in class_folders(folder)}
        )
        super().__init__(
            class_samples(root, splits, image_classes),
            image_classes,
            root,
            **pairing,
        )
        log_found(self.samples, root, image_classes)
        warn_left_out(root)

"""Data module of images and masks in folders."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...utils.arguments import Unpack, forwards
from ..images.datamodule import no_images_error
from ..images.reading import find_images, image_name, images_by_name, warn_left_out
from ..samples.folders import find_file, require_folder
from ..samples.samples import Samples, hold_out, log_found
from ..samples.split_folders import Split, check_nested_splits, check_siblings, split_folders
from .codes import Code, Codes, MaskCodes
from .datamodule import MaskData, MaskDataArgs
from .dataset import files_of


@forwards(MaskDataArgs, to=MaskData)
class MaskFolderData(MaskData):
    """Images and masks for segmentation: `root/images/**` and `root/masks/**`, of equal paths except for the suffix.

    Folders of the splits may be on either level, for images and masks alike: `root/train/images` or
    `root/images/train`. They may also be called `training`, `validation`, `val`, `dev` and `testing`, in any case.
    Without a folder for validation or test, that fraction of the training images is held out, seeded. Masks without an
    image are not used.

    >>> data = MaskFolderData("camvid", masks="labels/{stem}_P.png", codes=["sky", "road"])  # doctest: +SKIP
    >>> data = MaskFolderData("cells", codes={"background": 0, "cell": 255})  # doctest: +SKIP

    Args:
        root: Folder that contains the folders of images and masks, or those of the splits.
        images: Folder of the images, relative to `root` or to the folder of a split such as `root/train`; `.` if they
            lie directly in it.
        masks: Folder of the masks, relative to `root` or to the folder of a split such as `root/train`; or a pattern of
            their paths, also relative to it, with the image's `{stem}`, its `{folder}` relative to that of the images,
            and `{class}` if there is a mask per class, as in `masks/{class}/{stem}.png`; or a function from the path of
            an image to that of its mask, fastai's `label_func`.
        codes: Names of the classes, or how many there are, if masks contain class indices; or a mapping from each name
            to its value, or to its color `[red, green, blue]`. With a mask per class, masks contain 0 and either 1 or
            255, or 0 (black) and the value or color that is given. `mask_values` counts the values in masks.
        ignore: Values or colors of pixels whose class is unknown; their target is `ignore_index`.
        valid_fraction: Fraction of the training images to hold out for validation, if there is no folder for it.
        test_fraction: Fraction of the training images to hold out for testing, if there is no folder for it.
        seed: Seed of the random split.

    Raises:
        FileNotFoundError: If a folder or a mask is missing.
        ValueError: If there are no images, an image has several masks, or several images share a mask; if other folders
            of images lie beside those of the splits, or the folders of splits lie deeper.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        images: str = "images",
        masks: str | Path | Callable[[Path], Path] = "masks",
        codes: Codes,
        ignore: Sequence[Code] = (),
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 42,
        **loading: Unpack[MaskDataArgs],
    ) -> None:
        root, masks = Path(root), str(masks) if isinstance(masks, Path) else masks
        mask_codes = MaskCodes(codes, ignore, multilabel=isinstance(masks, str) and "{class}" in masks)
        splits, folders = _folders(root, images)
        found = {
            split: _find_pairs(base, folder, base / images, masks, mask_codes)
            for split, (base, folder) in folders.items()
        }
        used: list[str | Path] = [file for part in found.values() for mask in part.targets for file in files_of(mask)]
        if (predict_root := loading.get("predict_root")) is not None:
            used.append(predict_root)
        check_siblings(splits, find_images, used)
        if not splits:
            check_nested_splits(root / images, found["train"].paths)
        super().__init__(
            hold_out(found, valid_fraction, test_fraction, seed),
            mask_codes,
            **loading,
        )
        log_found(self.samples, root)
        warn_left_out(root)


def _folders(root: Path, images: str) -> tuple[dict[Split, Path], dict[Split, tuple[Path, Path]]]:
    """Returns the folder of each split that has one, and for each split the folders of its masks and of its images.

    That of its masks is the folder that `masks` is relative to.
    """
    require_folder(root, "root")
    if outer := split_folders(root, images):
        return outer, {split: (folder, folder / images) for split, folder in outer.items()}
    require_folder(root / images, "images")
    if inner := split_folders(root / images):
        return inner, {split: (root, folder) for split, folder in inner.items()}
    return {}, {"train": (root, root / images)}


def _find_pairs(
    base: Path, folder: Path, image_root: Path, masks: str | Callable[[Path], Path], codes: MaskCodes
) -> Samples:
    """Finds the images in a folder and the path of each one's mask, whether that file exists or not.

    Args:
        base: Folder that the masks are relative to.
        folder: Folder of the images of a split.
        image_root: Folder that the images' paths are relative to in a pattern, or when they are matched to masks.
        masks: Folder, pattern or function; see `MaskFolderData`.
        codes: Codes of the masks.
    """
    paths = find_images(folder)
    targets: list[Any]
    if callable(masks):
        targets = [find_file(Path(masks(path))) for path in paths]
    elif codes.multilabel:
        names = codes.class_names
        targets = [tuple(find_file(base / _fill(masks, path, image_root, name)) for name in names) for path in paths]
    elif "{" in masks:
        targets = [find_file(base / _fill(masks, path, image_root)) for path in paths]
    else:
        require_folder(base / masks, "masks")
        paths = [path for path in paths if base / masks not in path.parents]
        targets = _match_names(base / masks, paths, image_root)
    # masks may be in the folder of the images
    mask_files = {file for path, mask in zip(paths, targets, strict=True) for file in files_of(mask) if file != path}
    found = Samples(paths, targets)[[i for i, path in enumerate(paths) if path not in mask_files]]
    if not found.paths and (images := find_images(folder)):
        raise ValueError(
            f"Expected images in {folder} that are no masks, but by `masks` all {len(images)} are masks, the first "
            f"{images[0]}"
        )
    if not found.paths:
        raise no_images_error(folder)
    owners: dict[Path, Path] = {}
    for path, mask in zip(found.paths, found.targets, strict=True):
        for file in files_of(mask):
            if not callable(masks) and owners.setdefault(file, path) != path:
                raise ValueError(f"Expected a mask for each image, but {owners[file]} and {path} share {file}")
    return found


def _fill(pattern: str, path: Path, image_root: Path, name: str | None = None) -> str:
    """Fills in the pattern of a mask's path for an image, and for the class `name` if there is a mask per class."""
    fields = {"stem": path.stem, "folder": path.parent.relative_to(image_root).as_posix(), "class": name}
    try:
        return pattern.format(**fields)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"Expected `masks` to be a pattern of {{stem}}, {{folder}} and {{class}}, but got {pattern!r}"
        ) from error


def _match_names(folder: Path, paths: list[Path], image_root: Path) -> list[Path]:
    """Returns the mask at each image's relative path with any suffix, or with the suffix `.*` if there is none."""
    found = images_by_name(folder)
    names = [image_name(path, image_root) for path in paths]
    return [found.get(name, folder / f"{name}.*") for name in names]

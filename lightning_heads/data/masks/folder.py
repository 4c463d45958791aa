"""Images and masks in folders."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ..images.datamodule import Resize, no_images_error
from ..images.reading import find_images, images_by_name
from ..samples.samples import Samples, hold_out
from ..samples.split_folders import Split, require_folder, split_names
from .codes import Code, Codes, MaskCodes
from .datamodule import MaskData
from .dataset import files_of


class MaskFolderData(MaskData):
    """Images and masks for segmentation: `root/images/**` and `root/masks/**`, alike but for the suffix.

    Splits are folders on either level, `root/train/images` or `root/images/train`, and masks lie alike. Without a
    validation folder, a share of the training images is set aside, seeded. Masks without an image are left out.

    >>> data = MaskFolderData("camvid", masks="labels/{stem}_P.png", codes=["sky", "road"])  # doctest: +SKIP
    >>> data = MaskFolderData("cells", codes={"background": 0, "cell": 255})  # doctest: +SKIP

    Args:
        root: The folder.
        images: Folder of the images in `root`, or in each split's folder; `.` where they lie there themselves.
        masks: Where the masks are. A folder beside that of the images; or a pattern beside it, with the image's
            `{stem}`, its `{folder}` within the images, and `{class}` where each class has a mask, as in
            `masks/{class}/{stem}.png`; or a function of the image's path, fastai's `label_func`.
        codes: Names of the classes, where masks hold class indices, or each name with its value or color; see
            `MaskCodes`. `mask_values` counts what masks hold.
        ignore: Values or colors of pixels whose class is unknown.
        ignore_index: See `MaskData`.
        valid_fraction: Share of the images for validation, where there is no folder for it.
        test_fraction: Share of the images for testing, likewise.
        seed: Seed of that split.
        predict_root: See `ImageData`.
        image_size: See `ImageData`.
        batch_size: See `ImageData`.
        num_workers: See `ImageData`.
        resize: See `MaskData`.
        augmentation: See `MaskData`.
        augment: See `ImageData`.
        channels: See `ImageData`.
        on_error: See `MaskData`.

    Raises:
        FileNotFoundError: If a folder or a mask is missing.
        ValueError: If there are no images, an image has several masks, or several images have one mask.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        images: str = "images",
        masks: str | Path | Callable[[Path], Path] = "masks",
        codes: Codes,
        ignore: Sequence[Code] = (),
        ignore_index: int | None = 255,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 42,
        predict_root: str | Path | None = None,
        image_size: int | tuple[int, int] = 224,
        batch_size: int = 16,
        num_workers: int | None = None,
        resize: Resize = "crop",
        augmentation: nn.Module | None = None,
        augment: bool = True,
        channels: int = 3,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        masks = str(masks) if isinstance(masks, Path) else masks
        reads = MaskCodes(codes, ignore, multilabel=isinstance(masks, str) and "{class}" in masks)
        found = {
            split: _pairs(beside, folder, beside / images, masks, reads)
            for split, (beside, folder) in _folders(Path(root), images).items()
        }
        super().__init__(
            hold_out(found, valid_fraction, test_fraction, seed),
            reads,
            ignore_index=ignore_index,
            predict_root=predict_root,
            image_size=image_size,
            batch_size=batch_size,
            num_workers=num_workers,
            resize=resize,
            augmentation=augmentation,
            augment=augment,
            channels=channels,
            on_error=on_error,
        )


def _folders(root: Path, images: str) -> dict[Split, tuple[Path, Path]]:
    """Returns what each split's masks are beside, and the folder of its images."""
    require_folder(root, "root")
    if outer := split_names(lambda name: root / name / images):
        return {split: (root / name, root / name / images) for split, name in outer.items()}
    if inner := split_names(lambda name: root / images / name):
        return {split: (root, root / images / name) for split, name in inner.items()}
    require_folder(root / images, "images")
    return {"train": (root, root / images)}


def _pairs(beside: Path, folder: Path, home: Path, masks: str | Callable[[Path], Path], codes: MaskCodes) -> Samples:
    """Finds the images of a folder and the mask of each, whether it is there or not."""
    paths = find_images(folder)
    targets: list[Any]
    if callable(masks):
        targets = [Path(masks(path)) for path in paths]
    elif codes.multilabel:
        targets = [tuple(beside / _fill(masks, path, home, name) for name in codes.class_names) for path in paths]
    elif "{" in masks:
        targets = [beside / _fill(masks, path, home) for path in paths]
    else:
        require_folder(beside / masks, "masks")
        paths = [path for path in paths if beside / masks not in path.parents]
        targets = _by_name(beside / masks, paths, home)
    # masks may lie among the images
    others = {file for path, mask in zip(paths, targets, strict=True) for file in files_of(mask) if file != path}
    found = Samples(paths, targets)[[i for i, path in enumerate(paths) if path not in others]]
    if not found.paths:
        raise no_images_error(folder)
    owners: dict[Path, Path] = {}
    for path, mask in zip(found.paths, found.targets, strict=True):
        for file in files_of(mask):
            if not callable(masks) and owners.setdefault(file, path) != path:
                raise ValueError(f"Expected a mask for each image, but {owners[file]} and {path} share {file}")
    return found


def _fill(pattern: str, path: Path, home: Path, name: str | None = None) -> str:
    """Fills a pattern in for an image, and the class of the name."""
    fields = {"stem": path.stem, "folder": path.parent.relative_to(home).as_posix(), "class": name}
    try:
        return pattern.format(**fields)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"Expected `masks` to be a pattern of {{stem}}, {{folder}} and {{class}}, but got {pattern!r}"
        ) from error


def _by_name(folder: Path, paths: list[Path], home: Path) -> list[Path]:
    """Returns the mask of the same path within its folder, whatever its suffix."""
    found = images_by_name(folder)
    keys = [path.relative_to(home).with_suffix("") for path in paths]
    return [found.get(key, folder / f"{key}.*") for key in keys]

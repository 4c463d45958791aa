"""What is declared once reaches signatures, help texts and type checkers."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
from jsonargparse import ArgumentParser

import lightning_heads as lh
from lightning_heads import public
from lightning_heads.data.images.datamodule import ImageDataArgs, LoadingArgs
from lightning_heads.data.masks.datamodule import MaskDataArgs, MaskLoadingArgs
from lightning_heads.data.pairs.datamodule import PairDataArgs, PairingArgs, PairLoadingArgs
from lightning_heads.data.restoration.datamodule import RestorationLoadingArgs
from lightning_heads.encoders.encoder import BackboneArgs, EncoderArgs
from lightning_heads.models.image import ImageModelArgs
from lightning_heads.models.siamese import SiameseModelArgs
from lightning_heads.models.unet.unet import UnetArgs
from lightning_heads.utils.arguments import Unpack, forwards, init_parameters, with_defaults

CLASSES = [each for name in public.__all__ if isinstance(each := getattr(lh, name), type)]
FORWARDING = [
    each
    for each in CLASSES
    if any(p.kind == inspect.Parameter.VAR_KEYWORD for p in inspect.signature(each.__init__).parameters.values())
    and "__signature__" in vars(each)
]


@pytest.mark.parametrize(
    ("keywords", "callee"),
    [
        (BackboneArgs, lh.Encoder),
        (EncoderArgs, lh.Encoder),
        (ImageModelArgs, lh.ImageModel),
        (SiameseModelArgs, lh.SiameseModel),
        (UnetArgs, lh.DynamicUnet),
        (LoadingArgs, lh.ImageData),
        (ImageDataArgs, lh.ImageData),
        (MaskLoadingArgs, lh.ImageData),
        (MaskDataArgs, lh.MaskData),
        (PairLoadingArgs, lh.ImageData),
        (PairingArgs, lh.PairData),
        (PairDataArgs, lh.PairData),
        (RestorationLoadingArgs, lh.ImageData),
    ],
    ids=lambda each: each.__name__,
)
def test_a_typed_dict_has_the_types_of_the_signature(keywords: type, callee: type) -> None:
    declared = inspect.signature(callee).parameters
    hints = get_type_hints(keywords)
    assert hints
    assert hints == {name: declared[name].annotation for name in hints}


def test_there_are_classes_that_forward() -> None:
    assert len(FORWARDING) >= 17


@pytest.mark.parametrize("cls", FORWARDING, ids=lambda each: each.__name__)
def test_the_signature_has_what_the_source_passes_on(cls: type) -> None:
    """jsonargparse reads the source: an argument that a `TypedDict` lacks would be on the command line alone."""
    parser = ArgumentParser()
    parser.add_class_arguments(cls, "x")
    options = {a.dest[2:] for a in parser._actions if a.dest.startswith("x.") and not a.dest.endswith(".help")}
    shown = inspect.signature(cls).parameters
    taken_by_objects = {"head", "splitter"}  # no option where an argument takes modules or functions alone
    assert options - taken_by_objects == {*shown} - taken_by_objects


@pytest.mark.parametrize("cls", FORWARDING, ids=lambda each: each.__name__)
def test_every_argument_has_a_text_of_its_own(cls: type) -> None:
    documented = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = [line.strip() for line in documented.splitlines() if line.startswith("    ") and line[4] != " "]
    texts = dict(entry.split(": ", 1) for entry in entries)
    assert {*texts} == {*inspect.signature(cls).parameters}
    assert not [name for name, text in texts.items() if text.startswith(("See ", "Likewise"))]


def test_a_subclass_with_an_argument_of_its_own() -> None:
    class Cropped(lh.ImageFolderData):
        def __init__(self, *args: Any, margin: int = 4, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.margin = margin

    shown = inspect.signature(Cropped)
    assert str(shown) == "(*args: Any, margin: int = 4, **kwargs: Any) -> None"
    taken = init_parameters(Cropped)
    assert {"margin", "root", "valid_fraction", "image_size", "batch_size"} <= {*taken}
    assert not {"args", "kwargs", "loading", "samples"} & {*taken}


def test_arguments_of_a_class_that_passes_none_on_end_with_its_own() -> None:
    class Fixed(lh.ImageFolderData):
        def __init__(self, root: str) -> None:
            super().__init__(root, image_size=8)

    assert [*init_parameters(Fixed)] == ["root"]


def test_defaults_complete_what_is_given() -> None:
    given = with_defaults(UnetArgs, {"blur": True}, lh.DynamicUnet)
    assert given["blur"] is True
    assert given["decoder"] == "light"
    assert {*given} == {*UnetArgs.__annotations__}


def test_an_argument_that_the_callee_lacks_is_a_type_error() -> None:
    def callee(*, size: int = 1) -> None: ...

    class Other:
        def __init__(self, **kwargs: Unpack[LoadingArgs]) -> None: ...

    decorate: Callable[[type], type] = forwards(LoadingArgs, to=callee)
    with pytest.raises(KeyError):
        decorate(Other)


@pytest.mark.parametrize("wrong", [{"image_sise": 32}, {"images_per_class": 2}])
def test_a_wrong_name_is_refused(wrong: dict[str, Any], shapes_folder: Any) -> None:
    with pytest.raises(TypeError, match=next(iter(wrong))):
        lh.MaskFolderData(shapes_folder, codes={"background": 0, "square": 255}, **wrong)

"""torchvision's classification models as backbones, cut by a table of child names."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from .backbone import Backbone, append_readout, depth_by_definition, sequential_backbone, split_at
from .meta import IMAGENET_MEAN, IMAGENET_STD, EncoderMeta, Layout
from .surgery import cut_model

_FLATTEN = "flatten()"


@dataclass(frozen=True)
class Family:
    """Cut and split points of a torchvision model family, as module names.

    Attributes:
        cut: First child that is not in the body.
        split: First module of the second parameter group; by default half of the blocks are in each group.
        head: Layers between the body and the classifier, for families whose layers there have weights.
        skip: Children to leave out of the body: auxiliary classifiers.
        relu: Whether the model applies a functional ReLU after the body.
        layout: Layout of the body's output.
        centered: Whether the weights expect images in -1..1 instead of ImageNet's statistics.
    """

    cut: str
    split: str | None = None
    head: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    relu: bool = False
    layout: Layout = "NCHW"
    centered: bool = False


# Splits are those of fastai where it defines one.
FAMILIES = {
    "alexnet": Family(
        "avgpool",
        "features.6",
        ("avgpool", _FLATTEN, *(f"classifier.{i}" for i in (1, 2, 4, 5))),
    ),
    "convnext": Family("avgpool", head=("avgpool", "classifier.0", _FLATTEN)),
    "densenet": Family("classifier", "features.transition2", relu=True),
    "efficientnet": Family("avgpool"),
    "googlenet": Family("avgpool", skip=("aux1", "aux2"), centered=True),
    "inception": Family("avgpool", skip=("AuxLogits",), centered=True),
    "maxvit": Family("classifier", head=tuple(f"classifier.{i}" for i in range(5))),
    "mnasnet": Family("classifier"),
    "mobilenetv2": Family("classifier"),
    "mobilenetv3": Family("avgpool", head=("avgpool", _FLATTEN, "classifier.0", "classifier.1")),
    "regnet": Family("avgpool"),
    "resnet": Family("avgpool", "layer3"),
    "shufflenetv2": Family("fc"),
    "squeezenet": Family("classifier", "features.5"),
    "swin_transformer": Family("permute", layout="NHWC"),
    "vgg": Family(
        "avgpool",
        "features.22",
        ("avgpool", _FLATTEN, *(f"classifier.{i}" for i in (0, 1, 3, 4))),
    ),
}


def torchvision_names() -> list[str]:
    """Returns the names of torchvision's classification architectures."""
    names: list[str] = models.list_models(module=models)
    return names


def create_torchvision_model(name: str, pretrained: bool, image_size: tuple[int, int] | None = None) -> nn.Module:
    """Creates a torchvision classification model, with its default pretrained weights or randomly initialized."""
    options: dict[str, object] = {}
    if name in ("googlenet", "inception_v3") and not pretrained:
        options["init_weights"] = True
    if name.startswith("vit_") and image_size is not None:
        if image_size[0] != image_size[1]:
            raise ValueError(f"Expected a square `image_size` for {name}, but got {image_size[0]}x{image_size[1]}")
        options["image_size"] = image_size[0]
    try:
        model: nn.Module = models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    except ValueError as error:
        raise ValueError(f"Expected no `image_size` with torchvision's pretrained {name}, but: {error}") from error
    return model


def is_torchvision_model(model: nn.Module) -> bool:
    """Tells whether a module belongs to one of torchvision's classification families."""
    return type(model).__module__.startswith("torchvision.models.") and (
        _family(model) is not None or isinstance(model, models.VisionTransformer)
    )


def build_torchvision_backbone(
    model: nn.Module, name: str, image_size: tuple[int, int] | None = None, readout: bool = True
) -> Backbone:
    """Builds a backbone from a torchvision model, cut as the row of its family in `FAMILIES` gives."""
    if isinstance(model, models.VisionTransformer):
        return VisionTransformerBackbone(model, name, readout)
    family = _family(model)
    if family is None:
        raise ValueError(f"Expected a model of torchvision's classification families, but got {type(model).__name__}")
    body = cut_model(model, family.cut)
    for skipped in family.skip:
        if hasattr(body, skipped):
            delattr(body, skipped)
    if family.relu:
        body.add_module("relu", nn.ReLU())
    head = _head(model, family) if readout and family.head else None
    return sequential_backbone(
        body,
        head,
        tuple(
            name
            for name in family.head
            if name != _FLATTEN and any(True for _ in model.get_submodule(name).parameters())
        ),
        name=name,
        source="torchvision",
        children=tuple(key for key, _ in model.named_children()),
        cut=family.cut,
        split=family.split if family.split and _has_weights_from(body, family.split) else None,
        centered=family.centered,
        image_size=image_size or ((299, 299) if name == "inception_v3" else (224, 224)),
        fixed_size=isinstance(model, models.MaxVit),
        layout=family.layout,
    )


class VisionTransformerBackbone(Backbone):
    """torchvision's vision transformer without its classifier.

    With `readout` the class token, after the layers before the classifier, is appended to every position of the map.
    """

    body: Any  # a `models.VisionTransformer`, whose attributes torchvision does not type

    def __init__(self, model: models.VisionTransformer, name: str, readout: bool = True) -> None:
        super().__init__()
        width, patch, depth = model.hidden_dim, model.patch_size, len(model.encoder.layers)
        levels = tuple(i * depth // 4 - 1 for i in range(1, 5))
        self.head: nn.Module = model.heads if readout else nn.Identity()
        model.heads = nn.Identity()
        if isinstance(self.head, nn.Sequential):
            del self.head.head
        self.body = model
        kept = ("class token", *(f"heads.{key}" for key, _ in self.head.named_children()))
        self.meta = EncoderMeta(
            name=name,
            source="torchvision",
            children=tuple(key for key, _ in model.named_children()),
            cut="heads",
            split=(f"encoder.layers.encoder_layer_{depth // 2}",),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            input_size=(model.image_size, model.image_size),
            fixed_size=True,
            layout="tokens",
            num_features=width,
            readout=kept if readout else (),
            readout_features=(model.representation_size or width) if readout else 0,
            channels=(width,) * len(levels),
            reductions=(patch,) * len(levels),
            pyramid=levels,
        )

    def forward(self, x: Tensor) -> Tensor:
        encoder = self.body.encoder
        return self._read_out(encoder.ln(encoder.layers(self._embed(x))), x)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        return [self._grid(tokens, x) for tokens in self._levels(x)]

    def with_pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        levels = [self.body.encoder.ln(tokens) for tokens in self._levels(x)]
        return self._read_out(levels[-1], x), [self._grid(tokens, x) for tokens in levels]

    def groups(self, num_groups: int | None = None) -> list[list[str]]:
        return split_at(self, f"body.{self.meta.split[0]}") if num_groups is None else super().groups(num_groups)

    def depths(self) -> dict[str, int]:
        blocks = depth_by_definition(self.body.encoder.layers)
        last = max(blocks.values()) + 2
        depths = {}
        for name, _ in self.named_parameters():
            inside = name.removeprefix("body.encoder.layers.")
            depths[name] = blocks[inside] + 1 if inside in blocks else last if "encoder.ln" in name else 0
        return depths

    def set_grad_checkpointing(self, enable: bool) -> None:
        if enable:
            raise ValueError(f"Expected {self.meta.name} to support gradient checkpointing, but torchvision's does not")

    def _levels(self, x: Tensor) -> list[Tensor]:
        """Returns the tokens after each block of the pyramid; the last of these is the encoder's last block."""
        tokens = self._embed(x)
        levels = []
        for i, layer in enumerate(self.body.encoder.layers):
            tokens = layer(tokens)
            if i in self.meta.pyramid:
                levels.append(tokens)
        return levels

    def _read_out(self, tokens: Tensor, x: Tensor) -> Tensor:
        grid = self._grid(tokens, x)
        return append_readout(grid, self.head(tokens[:, 0])) if self.meta.readout else grid

    def _embed(self, x: Tensor) -> Tensor:
        tokens = self.body._process_input(x)
        tokens = torch.cat([self.body.class_token.expand(x.shape[0], -1, -1), tokens], dim=1)
        embedded: Tensor = self.body.encoder.dropout(tokens + self.body.encoder.pos_embedding)
        return embedded

    def _grid(self, tokens: Tensor, x: Tensor) -> Tensor:
        size = [side // self.body.patch_size for side in x.shape[-2:]]
        return tokens[:, 1:].transpose(1, 2).reshape(tokens.shape[0], -1, *size)


def _family(model: nn.Module) -> Family | None:
    package, _, module = type(model).__module__.rpartition(".")
    return FAMILIES.get(module) if package == "torchvision.models" else None


def _has_weights_from(body: nn.Module, split: str) -> bool:
    """Tells whether `split` exists and it or a later module has parameters; shallower variants may lack it."""
    names = [name for name, _ in body.named_modules()]
    if split not in names:
        return False
    return any(
        name in names[names.index(split) :] for name in {n.rpartition(".")[0] for n, _ in body.named_parameters()}
    )


def _head(model: nn.Module, family: Family) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            (name.replace(".", "_").rstrip("()"), nn.Flatten() if name == _FLATTEN else model.get_submodule(name))
            for name in family.head
        )
    )

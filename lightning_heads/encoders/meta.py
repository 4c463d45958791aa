"""Metadata of a backbone: cut and split points, feature map shapes, and the input that its weights expect."""

from dataclasses import dataclass, field
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Layout = Literal["NCHW", "NHWC", "tokens"]


@dataclass(frozen=True)
class EncoderMeta:
    """Metadata of a backbone, read from its library's metadata and from one forward pass.

    Attributes:
        name: Name of the architecture.
        source: Library that it comes from: `timm`, `torchvision`, or `module` for a user's own module.
        children: Names of the model's direct children, in order.
        cut: First child that is not in the body, or None where the whole module is the body.
        split: First module of the second and each later parameter group of the body.
        mean: Mean of each channel that the weights were trained with, for images in 0..1.
        std: Standard deviation of each channel that the weights were trained with, for images in 0..1.
        input_size: Height and width that the weights were trained at, in pixels.
        fixed_size: Whether it accepts images of `input_size` only.
        multiple: Number that height and width must be multiples of, or 1 if there is none, or none that exceeds the
            coarsest reduction of a convolutional network.
        layout: Layout of the backbone's own last feature map.
        num_features: Channels of the last feature map.
        readout: What the classifier's input has beyond the average of the feature map: names of the layers kept from
            the backbone's head, `class token`, or `own pooling`. Empty if the input is just that average.
        readout_features: Width of the classifier's input if `readout` is not empty, else 0.
        channels: Channels of each map of the pyramid, from fine to coarse.
        reductions: Input height over map height of each map of the pyramid, from fine to coarse.
        pyramid: Indices of the blocks whose outputs form the pyramid.
        interpolation: Interpolation that the training images were resized with.
        license: License of the weights, or `unknown` if the metadata does not give it.
    """

    name: str
    source: Literal["timm", "torchvision", "module"]
    children: tuple[str, ...]
    cut: str | None
    split: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int]
    fixed_size: bool
    layout: Layout
    num_features: int
    readout: tuple[str, ...] = ()
    readout_features: int = 0
    multiple: int = 1
    channels: tuple[int, ...] = ()
    reductions: tuple[int, ...] = ()
    pyramid: tuple[int, ...] = field(default=(), repr=False)
    interpolation: str = "bilinear"
    license: str = "unknown"

    def __str__(self) -> str:
        index = f"{self.children.index(self.cut) - len(self.children)}, " if self.cut in self.children else ""
        body = self.children[: self.children.index(self.cut)] if self.cut in self.children else self.children
        pyramid = ", ".join(f"{c} at 1/{r}" for c, r in zip(self.channels, self.reductions, strict=True))
        sizes = f"multiples of {self.multiple}" if self.multiple > 1 else "any size"
        sizes = "fixed" if self.fixed_size else sizes
        rows = {
            "cut": f"{index}before {self.cut}; the body is {', '.join(body)}" if self.cut else "none",
            "split": ", ".join(self.split) or "none",
            "stats": f"({[*self.mean]}, {[*self.std]})",
            "input": f"{self.input_size[0]}x{self.input_size[1]}, {sizes}",
            "features": f"{self.num_features} channels ({self.layout} inside)",
            "readout": f"{', '.join(self.readout)}: {self.readout_features} more" if self.readout else "none",
            "pyramid": pyramid or "none",
            "license": self.license,
        }
        return "\n".join([f"{self.name} ({self.source})", *(f"  {key:<9} {value}" for key, value in rows.items())])

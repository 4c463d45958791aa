"""What is known about a backbone: where to cut it, how to split it, what its weights expect."""

from dataclasses import dataclass, field
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Layout = Literal["NCHW", "NHWC", "tokens"]


@dataclass(frozen=True)
class EncoderMeta:
    """Facts about a backbone, read from its library's metadata and from one forward pass.

    Attributes:
        name: Architecture.
        source: Library that it comes from: `timm`, `torchvision`, or `module` for a module of the user's.
        children: Names of the model's direct children, in order.
        cut: First child that is not in the body, or None where the whole module is the body.
        split: Modules at which the second and each later parameter group of the body begins.
        mean: Mean of each channel that the weights were trained with, for images in 0..1.
        std: Standard deviation of each channel, likewise.
        input_size: Height and width that the weights were trained at, in pixels.
        fixed_size: Whether it takes no other size.
        multiple: What height and width have to be multiples of, where that is more than the coarsest reduction.
        layout: Layout of the backbone's own last feature map.
        num_features: Channels of the last feature map.
        readout: Where the classifier's input is more than the average of the feature map, what makes the difference:
            layers kept from the backbone's head, `class token`, or `own pooling`.
        readout_features: Width of the classifier's input where `readout` is not empty, else 0.
        channels: Channels of each map of the pyramid, from fine to coarse.
        reductions: Input height over the map's height, likewise.
        pyramid: Blocks of the backbone that the pyramid is taken at.
        interpolation: Interpolation of the training images.
        license: License of the weights, where the metadata says.
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
        rows = {
            "cut": f"{index}before {self.cut}; the body is {', '.join(body)}" if self.cut else "none",
            "split": ", ".join(self.split) or "none",
            "stats": f"({[*self.mean]}, {[*self.std]})",
            "input": f"{self.input_size[0]}x{self.input_size[1]}, {'fixed' if self.fixed_size else 'any size'}",
            "features": f"{self.num_features} channels ({self.layout} inside)",
            "readout": f"{', '.join(self.readout)}: {self.readout_features} more" if self.readout else "none",
            "pyramid": pyramid or "none",
            "license": self.license,
        }
        return "\n".join([f"{self.name} ({self.source})", *(f"  {key:<9} {value}" for key, value in rows.items())])

"""Backbones: a common interface to the pretrained models of timm and torchvision, and to a user's own modules."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..utils.modules import eval_mode
from .meta import IMAGENET_MEAN, IMAGENET_STD, EncoderMeta, Layout
from .surgery import input_channels


class Backbone(nn.Module):
    """Base class of backbones, which map images, normalized as the weights expect, to feature maps.

    `meta` is the backbone's metadata, and `body` the module that computes the last feature map.
    """

    meta: EncoderMeta
    body: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Maps images `(b, c, h, w)` to the last feature map, `(b, num_features + readout_features, h', w')`."""
        raise NotImplementedError

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Maps images `(b, c, h, w)` to feature maps, from fine to coarse, or from shallow to deep if of one size."""
        raise NotImplementedError

    def with_pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the outputs of `forward` and `pyramid` from one forward pass.

        Unlike in `pyramid`, maps of tokens have passed the final normalization layer.
        """
        raise NotImplementedError

    def depths(self) -> dict[str, int]:
        """Returns the depth of each parameter: 0 for the stem, increasing towards the output."""
        return depth_by_definition(self.body, "body.")

    def groups(self, num_groups: int | None = None) -> list[list[str]]:
        """Returns the parameter names in groups, from the input side to the output side; two by default, if possible.

        Raises:
            ValueError: If there are fewer blocks than groups.
        """
        depths = self.depths()
        return split_names(depths, min(2, len(set(depths.values()))) if num_groups is None else num_groups)

    def set_grad_checkpointing(self, enable: bool) -> None:
        """Enables or disables recomputation of activations in the backward pass."""
        raise NotImplementedError


class SequentialBackbone(Backbone):
    """A backbone whose body is a sequence of modules, with the layers that its head applied before the classifier."""

    def __init__(self, body: nn.Module, readout: nn.Sequential | None, meta: EncoderMeta) -> None:
        super().__init__()
        self.body, self.readout, self.meta = body, readout, meta
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        return self._read_out(self._run(x, ())[0])

    def pyramid(self, x: Tensor) -> list[Tensor]:
        return self._run(x, self.meta.pyramid)[1]

    def with_pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        last, maps = self._run(x, self.meta.pyramid)
        return self._read_out(last), maps

    def depths(self) -> dict[str, int]:
        depths = super().depths()
        last = max(depths.values(), default=0)
        return depths | {name: last for name, _ in self.named_parameters() if name not in depths}

    def groups(self, num_groups: int | None = None) -> list[list[str]]:
        if num_groups is None and self.meta.split:
            return split_at(self, f"body.{self.meta.split[0]}")
        return super().groups(num_groups)

    def set_grad_checkpointing(self, enable: bool) -> None:
        self.grad_checkpointing = enable

    def _run(self, x: Tensor, levels: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Returns the last feature map, and the maps after the steps with the indices `levels`."""
        recomputes = self.grad_checkpointing and self.training and torch.is_grad_enabled()
        maps, done = [], 0
        for block in _blocks(self.body, levels) if recomputes else [[step] for step in flat_steps(self.body)]:
            x = checkpoint(nn.Sequential(*block), x, use_reentrant=False) if recomputes else block[0](x)
            done += len(block)
            if done - 1 in levels:
                maps.append(channels_first(x, self.meta))
        return channels_first(x, self.meta), maps

    def _read_out(self, x: Tensor) -> Tensor:
        return x if self.readout is None else append_readout(x, self.readout(x))


def sequential_backbone(
    body: nn.Module,
    readout: nn.Sequential | None = None,
    readout_names: tuple[str, ...] = (),
    *,
    name: str,
    source: Literal["torchvision", "module"],
    children: tuple[str, ...],
    cut: str | None,
    split: str | None = None,
    centered: bool = False,
    image_size: tuple[int, int] = (224, 224),
    fixed_size: bool = False,
    layout: Layout = "NCHW",
) -> SequentialBackbone:
    """Builds a backbone from a body, reading its shapes from a forward pass of one image of zeros.

    Raises:
        ValueError: If the output of the body is not a feature map.
    """
    first = next(body.parameters(), torch.empty(0))
    x = torch.zeros(1, input_channels(body), *image_size, device=first.device, dtype=first.dtype)
    outputs = []
    modules = nn.ModuleList([body, *([] if readout is None else [readout])])
    with eval_mode(modules), torch.no_grad():
        for step in flat_steps(body):
            x = step(x)
            outputs.append(x)
        if not isinstance(x, Tensor) or x.ndim != 4:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"Expected the body of {name} to give a map (b, c, h, w), but it gives {shape}; pass `cut`"
            )
        vector = None if readout is None else readout(x.permute(0, 3, 1, 2) if layout == "NHWC" else x)
    axis, rows = (3, 1) if layout == "NHWC" else (1, 2)
    maps = {i: m for i, m in enumerate(outputs) if isinstance(m, Tensor) and m.ndim == 4}
    last = {m.shape[rows]: i for i, m in maps.items()}
    indices = sorted(last.values())
    meta = EncoderMeta(
        name=name,
        source=source,
        children=children,
        cut=cut,
        split=(split,) if split else (),
        mean=(0.5,) * 3 if centered else IMAGENET_MEAN,
        std=(0.5,) * 3 if centered else IMAGENET_STD,
        input_size=image_size,
        fixed_size=fixed_size,
        layout=layout,
        num_features=x.shape[axis],
        readout=() if readout is None else readout_names,
        readout_features=0 if vector is None else vector.shape[1],
        channels=tuple(maps[i].shape[axis] for i in indices),
        reductions=tuple(round(image_size[0] / maps[i].shape[rows]) for i in indices),
        pyramid=tuple(indices),
    )
    return SequentialBackbone(body, readout, meta)


def flat_steps(body: nn.Module) -> list[nn.Module]:
    """Returns the modules of a body in the order in which they run, with containers flattened two levels deep."""
    steps = [body]
    for _ in range(2):
        nested = [[*m.children()] if isinstance(m, (nn.Sequential, nn.ModuleList)) else [m] for m in steps]
        steps = [step for group in nested for step in group]
    return steps


def channels_first(x: Tensor, meta: EncoderMeta) -> Tensor:
    """Returns a feature map of the layout that the metadata gives as `(b, c, h, w)`."""
    return x.permute(0, 3, 1, 2) if meta.layout == "NHWC" else x


def _blocks(body: nn.Module, levels: Sequence[int]) -> list[list[nn.Module]]:
    """Groups the steps into blocks for checkpointing, none of which begins with an in-place activation.

    That would overwrite the input that checkpointing saves for the block. Each step of `levels` ends a block: it is the
    last step of its height, so that no activation follows it.
    """
    blocks: list[list[nn.Module]] = []
    for i, step in enumerate(flat_steps(body)):
        begins = isinstance(step, nn.Conv2d) or next(step.children(), None) is not None or i - 1 in levels
        if not blocks or begins:
            blocks.append([])
        blocks[-1].append(step)
    return blocks


def append_readout(x: Tensor, vector: Tensor) -> Tensor:
    """Appends a vector for each image, `(b, d)`, to every position of a feature map, `(b, c, h, w)`.

    Average and max pooling both return the vector unchanged, so that a classification head receives it, and a dense
    head receives it at every position; "project" in Ranftl 2021, Vision Transformers for Dense Prediction.
    """
    return torch.cat([x, vector[:, :, None, None].expand(-1, -1, *x.shape[-2:])], dim=1)


def pyramid_levels(maps: Sequence[Tensor]) -> list[int]:
    """Returns the indices of the maps that form the pyramid: the last map of each height, from fine to coarse.

    If all maps have the same height, as those of a ViT, four evenly spaced ones form it, from shallow to deep (Ranftl
    2021, Vision Transformers for Dense Prediction).
    """
    last = {m.shape[-2]: i for i, m in enumerate(maps)}
    if len(last) == 1:
        count = min(len(maps), 4)
        return [(i + 1) * len(maps) // count - 1 for i in range(count)]
    return sorted(last.values(), key=lambda i: -maps[i].shape[-2])


def depth_by_definition(module: nn.Module, prefix: str = "") -> dict[str, int]:
    """Returns the index of each parameter's block in the order of definition, with nested containers opened."""
    blocks: list[str] = []

    def visit(name: str, child: nn.Module, depth: int) -> None:
        children = [*child.named_children()]
        if children and ((isinstance(child, (nn.Sequential, nn.ModuleList)) and depth > 0) or len(children) == 1):
            for key, grandchild in children:
                visit(f"{name}.{key}", grandchild, depth - 1)
        elif next(child.parameters(), None) is not None:
            blocks.append(name)

    for key, child in module.named_children():
        visit(key, child, 2)

    def depth(parameter: str) -> int:
        return next((i for i, block in enumerate(blocks) if parameter.startswith(f"{block}.")), 0)

    return {f"{prefix}{name}": depth(name) for name, _ in module.named_parameters()}


def split_at(module: nn.Module, name: str) -> list[list[str]]:
    """Splits the parameter names in two, in the order of definition; the second group begins at submodule `name`."""
    names = [key for key, _ in module.named_modules()]
    second = names.index(name)
    groups: list[list[str]] = [[], []]
    for parameter, _ in module.named_parameters():
        groups[names.index(parameter.rpartition(".")[0]) >= second].append(parameter)
    return groups


def split_names(depth_of: dict[str, int], num_groups: int) -> list[list[str]]:
    """Splits parameter names by depth into contiguous groups of about equally many blocks; earlier groups are larger.

    For two groups of a residual network this is fastai's split: stem and half of the stages, then the rest.

    Raises:
        ValueError: If there are fewer blocks than groups.
    """
    depths = sorted(set(depth_of.values()))
    if not 1 <= num_groups <= len(depths):
        raise ValueError(
            f"Expected `num_groups` between 1 and {len(depths)}, the number of blocks, but got {num_groups}"
        )
    size, extra = divmod(len(depths), num_groups)
    group_of: dict[int, int] = {}
    for group in range(num_groups):
        for _ in range(size + (group < extra)):
            group_of[depths[len(group_of)]] = group
    groups: list[list[str]] = [[] for _ in range(num_groups)]
    for name, depth in depth_of.items():
        groups[group_of[depth]].append(name)
    return groups


def group_heads(groups: list[list[str]]) -> tuple[str, ...]:
    """Returns the name of the first module of each parameter group after the first.

    It is the shortest prefix of the group's first parameter name that no name of an earlier group begins with.
    """
    heads = []
    for i, group in enumerate(groups[1:], start=1):
        earlier = [name for names in groups[:i] for name in names]
        parts = group[0].split(".")
        prefixes = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        heads.append(next(p for p in prefixes if not any(name == p or name.startswith(f"{p}.") for name in earlier)))
    return tuple(heads)

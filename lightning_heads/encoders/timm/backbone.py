"""timm's models as backbones, described by their metadata and a forward pass."""

from typing import Any

from torch import Tensor, nn

from ..backbone import Backbone, append_readout, channels_first
from ..unused_parameters import drop_parameters
from .model import TimmModel, timm_classifiers, timm_depths
from .probe import probe, tokens_and_grids


class TimmBackbone(Backbone):
    """A timm model without its classifier.

    The last feature map is the output of `forward_features` if that is a map. For models that return token sequences
    or several tensors it comes from `forward_intermediates`, which restores the grid. The classifier's input comes from
    `forward_head`.

    Args:
        model: A timm model; its classifiers are removed in place.
        image_size: Height and width for the forward pass, in pixels; by default the model's own.
        in_channels: Channels of the images.
        readout: Whether `forward` appends the classifier's input if that is more than the map's average.

    Raises:
        ValueError: If the model lacks a part that an encoder needs.
    """

    body: TimmModel

    def __init__(
        self,
        model: TimmModel,
        image_size: tuple[int, int] | None = None,
        in_channels: int = 3,
        readout: bool = True,
    ) -> None:
        super().__init__()
        _remove_classifiers(model)
        self.meta, unused, running = probe(model, image_size, in_channels, readout)
        drop_parameters(model, unused, running)
        self.body = model

    def forward(self, x: Tensor) -> Tensor:
        if self.meta.layout == "tokens":
            features, grids = tokens_and_grids(self.body, x)
            return self._read_out(features, grids[-1])
        features = self.body.forward_features(x)
        return self._read_out(features, channels_first(features, self.meta))

    def pyramid(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.body.forward_intermediates(
            x, indices=self._levels(), output_fmt="NCHW", intermediates_only=True
        )
        return self._in_order(maps)

    def with_pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self.meta.layout == "tokens":
            features, maps = tokens_and_grids(self.body, x, self._levels())
            last = maps[-1]
        else:
            features, maps = self.body.forward_intermediates(x, indices=self._levels(), output_fmt="NCHW")
            last = channels_first(features, self.meta)
        return self._read_out(features, last), self._in_order(maps)

    def _levels(self) -> list[int]:
        """Returns the indices of the blocks whose outputs form the pyramid, in ascending order."""
        if not self.meta.pyramid:
            raise ValueError(
                f"Expected {self.meta.name} to have `forward_intermediates`, but the installed timm lacks it"
            )
        return sorted(self.meta.pyramid)

    def _in_order(self, maps: list[Tensor]) -> list[Tensor]:
        levels = self._levels()
        return [maps[levels.index(i)] for i in self.meta.pyramid]

    def _read_out(self, features: Any, last: Tensor) -> Tensor:
        if not self.meta.readout:
            return last
        return append_readout(last, self.body.forward_head(features, pre_logits=True))

    def depths(self) -> dict[str, int]:
        return {f"body.{name}": depth for name, depth in timm_depths(self.body).items()}

    def set_grad_checkpointing(self, enable: bool) -> None:
        try:
            self.body.set_grad_checkpointing(enable)
        except (AssertionError, AttributeError, NotImplementedError) as error:
            raise ValueError(f"Expected {self.meta.name} to support gradient checkpointing, but it does not") from error


def _remove_classifiers(model: TimmModel) -> None:
    modules = dict(model.named_modules())
    for name in timm_classifiers(model):
        if name in modules:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, nn.Identity())

"""Random augmentation of training images, with a single interpolation."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class AugTransforms(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Random flip, rotation, zoom, perspective warp, brightness and contrast, as fastai's `aug_transforms`.

    Inputs are float images `(..., c, h, w)` in 0..1. Rotation, zoom and warp are composed and sampled once, bilinearly,
    with reflected borders; masks are transformed alike, sampled at the nearest pixel. Brightness and contrast change
    the logits of the pixels.

    Args:
        mult: Factor on `max_rotate`, `max_lighting` and `max_warp`.
        do_flip: Whether to flip.
        flip_vert: Whether to draw from all eight flips and quarter turns (four if the image is not square) instead of
            the horizontal flip only.
        max_rotate: Largest rotation, in degrees.
        min_zoom: Smallest zoom.
        max_zoom: Largest zoom.
        max_lighting: Largest change of brightness and contrast, as a fraction.
        max_warp: Largest change of perspective.
        p_affine: Probability of each of rotation, zoom and warp.
        p_lighting: Probability of each of brightness and contrast.

    >>> AugTransforms(flip_vert=True)(torch.rand(3, 32, 32)).shape
    torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        mult: float = 1.0,
        do_flip: bool = True,
        flip_vert: bool = False,
        max_rotate: float = 10.0,
        min_zoom: float = 1.0,
        max_zoom: float = 1.1,
        max_lighting: float = 0.2,
        max_warp: float = 0.2,
        p_affine: float = 0.75,
        p_lighting: float = 0.75,
    ) -> None:
        super().__init__()
        if not 0 < min_zoom <= max_zoom:
            raise ValueError(f"Expected 0 < `min_zoom` <= `max_zoom`, but got {min_zoom} and {max_zoom}")
        if not 0 <= max_lighting * mult < 1:
            raise ValueError(f"Expected `max_lighting` in [0, 1), but got {max_lighting * mult}")
        self.do_flip, self.flip_vert = do_flip, flip_vert
        self.max_rotate, self.max_warp, self.max_lighting = max_rotate * mult, max_warp * mult, max_lighting * mult
        self.min_zoom, self.max_zoom = min_zoom, max_zoom
        self.p_affine, self.p_lighting = p_affine, p_lighting

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the random parameters, shared by all inputs of a call."""
        height, width = v2.query_size(flat_inputs)
        return {
            "dihedral": self._dihedral(height == width),
            "matrix": self._matrix(height, width),
            "brightness": self._brightness(),
            "contrast": self._contrast(),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Transforms an image or a mask; other inputs are returned unchanged."""
        if not isinstance(inpt, Tensor):
            return inpt
        mask = isinstance(inpt, tv_tensors.Mask)
        turns, flip = params["dihedral"]
        out = inpt.as_subclass(Tensor)
        out = dihedral(out, turns, flip)
        if params["matrix"] is not None:
            out = _sample(out, params["matrix"], "nearest" if mask else "bilinear")
        if not mask and (params["brightness"] or params["contrast"] != 1):
            logits = torch.logit(out.clamp(1e-6, 1 - 1e-6))
            out = torch.sigmoid((logits + params["brightness"]) * params["contrast"])
        return tv_tensors.wrap(out, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else out

    def _dihedral(self, square: bool) -> tuple[int, bool]:
        if not self.do_flip:
            return 0, False
        if not self.flip_vert:
            return 0, _chance(0.5)
        turns = int(torch.randint(4, ())) if square else 2 * int(torch.randint(2, ()))
        return turns, _chance(0.5)

    def _matrix(self, height: int, width: int) -> Tensor | None:
        """Draws the homography from output to input coordinates in -1..1; None if it is the identity."""
        matrix = torch.eye(3)
        changed = False
        if self.max_rotate and _chance(self.p_affine):
            angle = math.radians(_uniform(-self.max_rotate, self.max_rotate))
            cos, sin, aspect = math.cos(angle), math.sin(angle), width / height
            matrix = torch.tensor([[cos, -sin / aspect, 0], [sin * aspect, cos, 0], [0, 0, 1]]) @ matrix
            changed = True
        if (self.min_zoom != 1 or self.max_zoom != 1) and _chance(self.p_affine):
            scale = 1 / _uniform(self.min_zoom, self.max_zoom)
            x, y = ((1 - scale) * _uniform(-1, 1) for _ in range(2))
            matrix = torch.tensor([[scale, 0, x], [0, scale, y], [0, 0, 1]]) @ matrix
            changed = True
        if self.max_warp and _chance(self.p_affine):
            matrix = warp_matrix(*(_uniform(-self.max_warp, self.max_warp) for _ in range(2))) @ matrix
            changed = True
        return matrix if changed else None

    def _brightness(self) -> float:
        if not self.max_lighting or not _chance(self.p_lighting):
            return 0.0
        middle = 0.5 * (1 + _uniform(-self.max_lighting, self.max_lighting))
        return math.log(middle / (1 - middle))

    def _contrast(self) -> float:
        if not self.max_lighting or not _chance(self.p_lighting):
            return 1.0
        bound = -math.log(1 - self.max_lighting)
        return math.exp(_uniform(-bound, bound))


def dihedral(x: Tensor, turns: int, flip: bool, inverse: bool = False) -> Tensor:
    """Rotates `(..., h, w)` by quarter turns, then flips it horizontally; the inverse undoes both.

    >>> x = torch.rand(3, 4, 6)
    >>> bool((dihedral(dihedral(x, 1, True), 1, True, inverse=True) == x).all())
    True
    """
    if inverse:
        x = x.flip(-1) if flip else x
        return torch.rot90(x, -turns, (-2, -1)) if turns else x
    x = torch.rot90(x, turns, (-2, -1)) if turns else x
    return x.flip(-1) if flip else x


def warp_matrix(x: float, y: float) -> Tensor:
    """Returns fastai's perspective warp, a homography `(3, 3)` that maps a trapezoid to the square -1..1.

    The corners of the trapezoid lie `x` and `y` outside those of the square at one end, and inside at the other.
    """
    corners = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    moved = torch.tensor([[-1 - y, -1 - x], [-1 + y, 1 + x], [1 + y, -1 + x], [1 - y, 1 - x]])
    rows = []
    for (u, v), (a, b) in zip(moved.tolist(), corners.tolist(), strict=True):
        rows += [[u, v, 1, 0, 0, 0, -a * u, -a * v], [0, 0, 0, u, v, 1, -b * u, -b * v]]
    solution = torch.linalg.solve(torch.tensor(rows), corners.flatten())
    return torch.cat([solution, torch.ones(1)]).view(3, 3)


def _sample(x: Tensor, matrix: Tensor, mode: str) -> Tensor:
    height, width = x.shape[-2:]
    ys, xs = (torch.linspace(-1 + 1 / n, 1 - 1 / n, n, device=x.device) for n in (height, width))
    ones = torch.ones(height, width, device=x.device)
    grid = torch.stack([*torch.meshgrid(xs, ys, indexing="xy"), ones], dim=-1) @ matrix.T.to(x.device)
    grid = grid[..., :2] / grid[..., 2:]
    images = x.reshape(1, -1, height, width)
    dtype = images.dtype
    sampled = F.grid_sample(images.float(), grid[None], mode, padding_mode="reflection", align_corners=False)
    return sampled.to(dtype).reshape(x.shape)


def _chance(p: float) -> bool:
    return float(torch.rand(())) < p


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))

import torch
from torch import Tensor, nn

from lightning_heads.encoders.unused_parameters import drop_parameters, recorded_calls, unused_parameters


class Branches(nn.Module):
    """`b` runs without reaching the output, `c` does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        self.b(x)
        return x


def test_parameters_that_outputs_do_not_depend_on_are_named() -> None:
    model = Branches()
    out = model(torch.rand(1, 2))
    assert unused_parameters(model, out) == ["b.weight", "b.bias", "c.weight", "c.bias"]
    assert unused_parameters(model, out, model.c(out)) == ["b.weight", "b.bias"]
    model.b.requires_grad_(False)
    assert unused_parameters(model, model(torch.rand(1, 2))) == ["c.weight", "c.bias"]


def test_parameters_of_running_modules_become_non_persistent_buffers() -> None:
    model = Branches()
    x = torch.rand(1, 2)
    with recorded_calls(model) as called:
        out = model(x)
    assert called == ["a", "b"]
    bias = model.b.bias.detach().clone()
    drop_parameters(model, unused_parameters(model, out), called)
    assert [name for name, _ in model.named_parameters()] == [*model.state_dict()] == ["a.weight", "a.bias"]
    assert torch.equal(model.b.bias, bias)
    assert model.c.weight is None
    assert torch.equal(model(x), out)


def test_recording_leaves_no_hooks() -> None:
    model = Branches()
    with recorded_calls(model):
        pass
    assert not any(module._forward_pre_hooks for module in model.modules())

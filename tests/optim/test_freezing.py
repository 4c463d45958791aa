import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import lightning_heads as lh
from lightning_heads.optim.freezing import freeze, freeze_to, unfreeze
from lightning_heads.optim.param_groups import is_norm, optimizer_groups


def _model() -> lh.ImageModel:
    return lh.ImageModel("test_resnet", 2, pretrained=False)


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def test_freezes_the_groups_before_the_nth() -> None:
    model = _model()
    names = {id(p): name for name, p in model.named_parameters()}
    for n, frozen in ((-1, 2), (1, 1), (2, 2), (0, 0)):
        freeze_to(model, n, norm="eval")
        assert _frozen(model) == {names[id(p)] for group in model.param_groups()[:frozen] for p in group}


def test_norm_layers_train_as_with_fastai() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastai.vision.all import SGD, DataLoaders, Learner
    model = _model()
    learner = Learner(
        DataLoaders([], []), model, nn.CrossEntropyLoss(), opt_func=SGD, splitter=lambda model: model.param_groups()
    )
    learner.freeze()
    fastais = _frozen(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    freeze(model)
    assert _frozen(model) == fastais
    assert 0 < len(fastais) < len([*model.encoder.parameters()])


@pytest.mark.parametrize("norm", ["stats", "eval"])
def test_norm_policies(norm: str) -> None:
    model = _model()
    freeze(model, norm=norm)
    buffers = {name: value.clone() for name, value in model.encoder.named_buffers()}
    model(torch.rand(4, 3, 32, 32))
    changed = [name for name, value in model.encoder.named_buffers() if not torch.equal(value, buffers[name])]
    assert bool(changed) == (norm == "stats")
    assert {p.requires_grad for p in model.encoder.parameters()} == {False}
    assert all(module.training for module in model.head.modules())


def test_dropout_is_off_in_frozen_modules_alone() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Dropout(0.1), nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 4), nn.Dropout())
            self.head = nn.Sequential(nn.Dropout(), nn.Linear(4, 2))

        def param_groups(self) -> list[list[nn.Parameter]]:
            body = self.body
            return [[*body[1].parameters()], [*body[3].parameters(), *self.head.parameters()]]

    model = Net()
    freeze_to(model, 1, norm="eval")
    assert [module.training for module in model.body] == [False, False, True, True, True]
    assert all(module.training for module in model.head)
    unfreeze(model)
    assert all(module.training for module in model.modules())


def test_a_frozen_encoder_records_no_autograd_graph() -> None:
    model = _model()
    freeze(model, norm="eval")
    assert not model.encoder(torch.rand(2, 3, 32, 32)).requires_grad
    assert model(torch.rand(2, 3, 32, 32)).requires_grad


def test_what_the_user_froze_stays_frozen() -> None:
    model = _model()
    first = next(iter(model.encoder.parameters()))
    first.requires_grad_(False)
    model.head.eval()
    for n in (-1, 0, 1, 0):
        freeze_to(model, n, norm="eval")
        assert not first.requires_grad
    assert len(_frozen(model)) == 1
    assert not model.head.training


def test_a_copy_can_be_unfrozen() -> None:
    model = _model()
    freeze(model, norm="eval")
    twin = copy.deepcopy(model)
    unfreeze(twin)
    assert _frozen(twin) == set()
    assert all(module.training for module in twin.modules())
    assert _frozen(model)


def test_frozen_parameters_do_not_change_after_an_unfrozen_step() -> None:
    model = _model()
    optimizer = torch.optim.AdamW(optimizer_groups(model, 0.1), weight_decay=0.5)

    def step() -> None:
        model(torch.rand(4, 3, 32, 32)).square().mean().backward()
        optimizer.step()

    step()
    freeze(model, norm="eval")  # also drops the gradients of the step before
    state = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    for _ in range(3):
        step()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_is_norm_recognizes_torchs_normalization_layers() -> None:
    layers = [nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.RMSNorm(2), nn.InstanceNorm2d(2)]
    assert all(is_norm(layer) for layer in layers)
    assert not is_norm(nn.Linear(2, 2))


@pytest.mark.parametrize("n", [3, -4])
def test_group_indices_out_of_range_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="`n` between -3 and 2, as there are 3 parameter groups"):
        freeze_to(_model(), n)


@pytest.mark.parametrize("call", [freeze, lambda model: freeze_to(model, 1)])
def test_a_model_of_one_group_cannot_be_frozen(call: Callable[[nn.Module], None]) -> None:
    with pytest.raises(ValueError, match="several parameter groups to freeze some"):
        call(nn.Linear(2, 2))


def test_freeze_accepts_a_splitter() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    freeze(model, splitter=lambda m: [[*m[0].parameters()], [*m[1].parameters()]])
    assert _frozen(model) == {"0.weight", "0.bias"}


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="`norm` to be train, stats, eval, but got 'off'"):
        freeze(_model(), norm="off")  # type: ignore[arg-type]


def test_a_linear_layer_that_normalizes_its_weight_is_no_normalization_layer() -> None:
    class NormedLinear(nn.Linear):
        pass

    assert not is_norm(NormedLinear(2, 2))
    assert is_norm(nn.LayerNorm((2, 3, 3)))

import warnings

import pytest
import torch
from torch import nn

from lightning_heads import Encoder, ImageModel, create_head
from lightning_heads.optim.param_groups import optimizer_groups, param_groups, slice_lr


class _Grouped(nn.Module):
    def __init__(self, groups: list[list[str]]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.groups = groups

    def param_groups(self) -> list[list[nn.Parameter]]:
        return [[self.get_parameter(name) for name in group] for group in self.groups]


A, B = ["a.weight", "a.bias"], ["b.weight", "b.bias"]


def test_groups_are_validated_by_the_identity_of_parameters() -> None:
    model = _Grouped([A, B])
    nn.init.zeros_(model.a.bias)
    nn.init.zeros_(model.b.bias)  # equal by value, different by identity
    assert [len(group) for group in param_groups(model)] == [2, 2]
    with pytest.raises(ValueError, match=r"1 are in none: b.bias"):
        param_groups(_Grouped([A, ["b.weight"]]))
    with pytest.raises(ValueError, match="group 1 has none"):
        param_groups(_Grouped([A, [], B]))
    with pytest.raises(ValueError, match=r"a.weight in one parameter group, but it is in 0 and 1"):
        param_groups(_Grouped([A, [*B, "a.weight"]]))


def test_a_model_without_param_groups_has_one_group() -> None:
    assert len(param_groups(nn.Linear(2, 2))) == 1


def test_a_sequential_has_the_groups_of_its_encoder_and_one_more() -> None:
    encoder = Encoder("test_resnet", pretrained=False)
    model = nn.Sequential(encoder, nn.Flatten(), create_head(encoder.num_features, 2))
    groups = param_groups(model)
    assert [len(group) for group in groups[:-1]] == [len(group) for group in encoder.param_groups()]
    assert [id(p) for p in groups[-1]] == [id(p) for p in model[2].parameters()]


def test_slices_equal_fastais() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastai.torch_core import even_mults

    assert slice_lr((1e-5, 1e-3), 3) == pytest.approx([*even_mults(1e-5, 1e-3, 3)])
    assert slice_lr(0.1, 2) == [0.1, 0.1]
    assert slice_lr([1.0, 2.0, 4.0], 3) == [1.0, 2.0, 4.0]
    assert slice_lr((1e-5, 1e-3), 1) == [1e-3]


@pytest.mark.parametrize("lr", [[1.0, 2.0, 3.0, 4.0], 0.0, [-1.0, 1.0], []])
def test_impossible_learning_rates_are_refused(lr: object) -> None:
    with pytest.raises(ValueError, match="`lr`"):
        slice_lr(lr, 3)  # type: ignore[arg-type]


def test_a_slice_object_is_refused() -> None:
    with pytest.raises(TypeError, match=r"one number a group, but got slice.*write a slice as a pair"):
        slice_lr(slice(1e-5, 1e-3), 3)  # type: ignore[arg-type]


def test_norms_biases_and_names_in_no_weight_decay_do_not_decay() -> None:
    model = ImageModel("test_vit", 2, pretrained=False)
    groups = optimizer_groups(model, (1e-4, 1e-2))
    owner = {name: group for group in groups for name in group["param_names"]}
    assert set(owner) == {name for name, _ in model.named_parameters()}
    for name, group in owner.items():
        parameter = model.get_parameter(name)
        vector = parameter.ndim == 1 or "pos_embed" in name or "cls_token" in name or "reg_token" in name
        assert (group.get("weight_decay") == 0.0) == vector, name
    assert sorted({group["lr"] for group in groups}) == pytest.approx([1e-4, 1e-3, 1e-2])


def test_an_optimizer_accepts_the_groups() -> None:
    model = ImageModel("test_resnet", 2, pretrained=False)
    optimizer = torch.optim.SGD(optimizer_groups(model, 0.1), lr=1.0, weight_decay=0.5)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.5}
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


def test_scales_and_position_embeddings_of_any_shape_do_not_decay() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(4, 1, 1))
            self.pos_embedding = nn.Parameter(torch.ones(1, 3, 4))
            self.rel_pos_h = nn.Parameter(torch.ones(3, 4))
            self.narrow, self.norm = nn.Linear(1, 3), nn.GroupNorm(2, 4)

    decayed = [
        name for group in optimizer_groups(Net()) if "weight_decay" not in group for name in group["param_names"]
    ]
    assert decayed == ["narrow.weight"]


def test_a_splitter_is_validated_as_the_models_own_groups() -> None:
    model = _Grouped([A, B])
    groups = optimizer_groups(model, [1.0, 2.0], splitter=lambda m: [[*m.b.parameters()], [*m.a.parameters()]])
    assert {group["lr"]: group["name"][0] for group in groups} == {1.0: "0", 2.0: "1"}
    with pytest.raises(ValueError, match=r"2 are in none: b.weight, b.bias"):
        optimizer_groups(model, splitter=lambda m: [[*m.a.parameters()]])
    model.b.requires_grad_(False)
    assert len(param_groups(model, lambda m: [[*m.a.parameters()]])) == 1


@pytest.mark.parametrize("lr", [(None, 1e-3), [None, 1e-3]])
def test_none_in_a_pair_gives_a_tenth_to_all_but_the_last_group(lr: object) -> None:
    assert slice_lr(lr, 3) == pytest.approx([1e-4, 1e-4, 1e-3])  # type: ignore[arg-type]
    assert slice_lr(lr, 1) == [1e-3]  # type: ignore[arg-type]


@pytest.mark.parametrize("lr", [(1e-3, None), (None, None), (None, -1.0), float("nan"), float("inf"), "0.1"])
def test_incomplete_and_non_finite_learning_rates_are_refused(lr: object) -> None:
    with pytest.raises((ValueError, TypeError), match="`lr`"):
        slice_lr(lr, 3)  # type: ignore[arg-type]


def test_a_pair_for_one_group_warns() -> None:
    with pytest.warns(UserWarning, match=r"one parameter group, which gets the upper end of `lr` \(1e-05, 0.001\)"):
        optimizer_groups(nn.Linear(2, 2), (1e-5, 1e-3))


def test_a_pair_that_gives_the_head_the_lower_rate_warns() -> None:
    with pytest.warns(UserWarning, match=r"The head.* gets the lower learning rate of `lr` \(0.01, 1e-05\)"):
        assert slice_lr((1e-2, 1e-5), 4) == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slice_lr((1e-5, 1e-2), 4)
        slice_lr([1e-2, 1e-3, 1e-4], 3)  # one a group, on purpose

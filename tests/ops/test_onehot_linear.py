"""Products with one-hot codes: looked up on CPUs, and the same as any other product, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.config import ActorCriticConfig
from glamkit.models.actor_critic import ActorCritic
from glamkit.ops import onehot_linear
from glamkit.ops.onehot_linear import CodeLinear, Codes, Inputs
from glamkit.types import Rollout

SHAPE, OTHERS, OUT = Codes(3, 4), 5, 7
LOOKS = ("test_schema", "test_faketensor")


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise products as small as these are not looked up."""
    monkeypatch.setattr(onehot_linear, "LARGE", 0)
    monkeypatch.setattr(onehot_linear, "MANY", 0)


def inputs(*count: int, kind: torch.dtype = torch.float64) -> Tensor:
    """Codes and others, (*count, 12 + 5), which want a gradient."""
    torch.manual_seed(1)
    code = F.one_hot(torch.randint(4, (*count, 3)), 4).flatten(-2)
    return torch.cat([code, torch.randn(*count, OTHERS)], -1).to(kind).requires_grad_()


def layer(others: int = OTHERS, kind: torch.dtype = torch.float64) -> tuple[CodeLinear, nn.Linear]:
    """The layer, and an ordinary one with the same weights."""
    torch.manual_seed(0)
    mine = CodeLinear(SHAPE, others, OUT).to(kind)
    plain = nn.Linear(12 + others, OUT, bias=False).to(kind)
    plain.load_state_dict(mine.state_dict())
    return mine, plain


def outcome(function: nn.Module, x: Tensor) -> list[Tensor]:
    """What a layer says, and the gradients of some function of it by the input and the weights."""
    y = function(x)
    weight = torch.linspace(-1, 1, y.numel()).view(y.shape).to(y)
    return [y, *torch.autograd.grad((y * weight).sum(), [x, *function.parameters()])]


def alike(mine: list[Tensor], other: list[Tensor], within: float = 1e-12) -> None:
    for one, two in zip(mine, other, strict=True):
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        torch.testing.assert_close(one, two, rtol=0, atol=within)


@pytest.mark.parametrize("count", [(6,), (2, 3), (2, 1, 3), (1,), (0,), (0, 3)])
@pytest.mark.parametrize("others", [OTHERS, 0])
def test_codes_make_no_difference(count: tuple[int, ...], others: int) -> None:
    mine, plain = layer(others)
    x = inputs(*count)[..., : 12 + others].detach().requires_grad_()
    alike(outcome(mine, x), outcome(plain, x))
    with torch.no_grad():
        alike([mine(x)], [plain(x)])


@pytest.mark.parametrize("tables", [(2, 3), (512, 128)])
def test_tables_and_stripes_make_no_difference(tables: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onehot_linear, "TABLE", tables[0])
    monkeypatch.setattr(onehot_linear, "STRIPE", tables[1])
    mine, plain = layer()
    alike(outcome(mine, inputs(40)), outcome(plain, inputs(40)))


ODD = [
    [0.2, 0.3, 0.1, 0.4],
    [0, 0, 0, 0],
    [2, 0, 0, 0],
    [0, 1, 0.5, 0],
    [1, 1, 0, 0],
    [1, 1, 0, -1],
    [0, 0, 0, float("nan")],
]


@pytest.mark.parametrize("odd", ODD)
def test_a_single_odd_code_is_noticed(odd: list[float]) -> None:
    mine, plain = layer()
    x = inputs(2, 3)
    with torch.no_grad():
        x[1, 2, 4:8] = torch.tensor(odd)
    looked = mine.inputs(x)
    assert isinstance(looked, Inputs)
    assert (looked.columns == -1).all()
    assert (onehot_linear._read(x[..., :12], 4) == -1).all()
    torch.testing.assert_close(outcome(mine, x), outcome(plain, x), equal_nan=True)


def test_twos_and_zeros_do_not_make_up_for_each_other() -> None:
    mine, plain = layer()
    x = inputs(6)
    with torch.no_grad():
        x[3, :12] = torch.tensor([0.0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0])
        x[4, :12] = torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0])
    for columns in (mine.inputs(x).columns, onehot_linear._read(x[..., :12], 4)):
        assert (columns == -1).all()
    alike(outcome(mine, x), outcome(plain, x))


def test_columns_are_those_of_the_ones() -> None:
    x = inputs(2, 3)
    looked = layer()[0].inputs(x)
    assert isinstance(looked, Inputs)
    for columns in (looked.columns, onehot_linear._read(x[..., :12], 4)):
        assert torch.equal(columns, x[..., :12].nonzero()[:, -1].view(2, 3, 3))
    assert torch.equal(looked.others, x[..., 12:])


def test_inputs_may_be_looked_up_before() -> None:
    (mine, plain), x = layer(), inputs(2, 3)
    looked = mine.inputs(x)
    again = mine.look(x[..., :12], x[..., 12:])
    alike([mine(looked), mine(again)], [plain(x), plain(x)])


def test_bfloat16_rounds_as_products_do() -> None:
    mine, plain = layer(kind=torch.float32)
    x = inputs(200, kind=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, expected = outcome(mine, x), outcome(plain, x)
    assert [part.dtype for part in rounded] == [torch.bfloat16, torch.float32, torch.float32]
    exact = outcome(plain, x)
    for one, two, three in zip(rounded, expected, exact, strict=True):
        assert (one - three).norm() <= 2 * (two - three).norm() + 1e-3 * three.norm()


def test_compilers_see_the_same() -> None:
    (mine, plain), x = layer(kind=torch.float32), inputs(6, kind=torch.float32)
    traced = torch.compile(mine, backend="aot_eager", fullgraph=True)
    alike(outcome(traced, x), outcome(plain, x), 1e-6)
    with torch.no_grad():
        alike([traced(x)], [plain(x)], 1e-6)


def test_compilers_are_told_the_truth() -> None:
    mine, x = layer(kind=torch.float32)[0], inputs(6, kind=torch.float32)
    looked = mine.inputs(x.detach())
    assert isinstance(looked, Inputs)
    code, weight = looked.codes, mine.weight[:, :12].detach().clone()
    operations = torch.ops.glamkit
    torch.library.opcheck(operations.code_product.default, (code, looked.columns, weight), test_utils=LOOKS)
    grad = torch.randn(6, OUT)
    torch.library.opcheck(operations.code_gradient.default, (grad, code, looked.columns), test_utils=LOOKS)


def test_other_devices_multiply() -> None:
    mine = layer()[0].to("meta")
    x = inputs(2, 3).to("meta")
    assert mine.inputs(x) is x
    assert mine.look(x[..., :12], x[..., 12:]).shape == x.shape
    assert mine(x).shape == (2, 3, OUT)


def test_small_products_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, x = layer()[0], inputs(2, 3)
    for size, rows, looks in ((12 * OUT, 6, True), (12 * OUT + 1, 6, False), (12 * OUT, 7, False)):
        monkeypatch.setattr(onehot_linear, "LARGE", size)
        monkeypatch.setattr(onehot_linear, "MANY", rows)
        assert isinstance(mine.inputs(x), Inputs) == looks
    assert torch.equal(mine.look(x[..., :12], x[..., 12:]), x)
    assert torch.equal(mine(x), nn.functional.linear(x, mine.weight))


def test_actor_and_critic_learn_the_same_by_codes() -> None:
    config, steps = ActorCriticConfig(width=16, bins=11), 4
    mine, plain = ActorCritic(config, 17, 3, SHAPE), ActorCritic(config, 17, 3)
    plain.load_state_dict(mine.state_dict())
    states = inputs(6, steps + 1, kind=torch.float32).detach()
    rollout = Rollout(states, torch.randint(3, (6, steps)), torch.randn(6, steps), torch.zeros(6, steps))
    for net in (mine, plain):
        net.loss(rollout)[0].backward()
    for one, two in zip(mine.parameters(), plain.parameters(), strict=True):
        if two.grad is not None:
            torch.testing.assert_close(one.grad, two.grad)
    assert mine.act(states).shape == (6, steps + 1)

"""What dreams choose, in three operations: the same numbers as the formulas, by kernels and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import plain_bodies
import pytest
import torch
import torch.nn.functional as F
from interpreter import interpret
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from glamkit.config import ActorCriticConfig, WorldModelConfig
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.world_model import WorldModel
from glamkit.ops import device, imagination
from glamkit.ops.functional import sample_categorical
from glamkit.ops.triton import sampling as kernels
from glamkit.runtime.cuda_graphs import Recorded, Recorder
from glamkit.training.accelerate import imagination as faster_imagination
from glamkit.training.accelerate import rules
from glamkit.training.updates import with_methods
from glamkit.types import Context

CASES: list[dict[str, int]] = [  # rows, codes, classes, D, actions, W
    {"rows": 9, "variables": 3, "classes": 5, "width": 20, "actions": 3, "units": 12},
    {"rows": 7, "variables": 4, "classes": 4, "width": 16, "actions": 18, "units": 33},
    {"rows": 1, "variables": 1, "classes": 2, "width": 1, "actions": 1, "units": 1},
]
PUBLISHED = {"rows": 1024, "variables": 32, "classes": 32, "width": 256, "actions": 6, "units": 512}
A, L, H = 3, 8, 5
LOOKS = ("test_schema", "test_faketensor")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def as_on_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on the operations are used here too, without their kernels."""
    return lambda: monkeypatch.setattr(imagination, "supported", lambda *_: not torch.is_grad_enabled())


def models(layers: int = 2, **changes: Any) -> tuple[WorldModel, ActorCritic]:
    small = {"channels": (4, 8), "width": 16, "variables": 4, "classes": 4, "state": 4}
    world = WorldModel(WorldModelConfig(**{**small, **changes}), A).eval()
    actor = ActorCritic(ActorCriticConfig(width=12, layers=layers), world.features, A).eval()
    with torch.no_grad():
        for norm in (norm for part in (world, actor) for norm in part.modules() if isinstance(norm, nn.LayerNorm)):
            norm.weight.normal_()
            norm.bias.normal_()
    for rule in rules.RULES:  # as on GPUs; the operations themselves look where they are
        if rule.name in ("scan", "shared_windows", "paired_windows", "sampling"):
            for part, faster in [*rule.swaps(world), *rule.swaps(actor)]:
                rules.swap(part, faster)
    return world, actor


def contexts(world: WorldModel, rows: int = 40) -> Context:
    codes = torch.randint(world.config.classes, (rows, L, world.config.variables))
    latents = F.one_hot(codes, world.config.classes).float().flatten(-2)
    return Context(latents, torch.randint(world.actions, (rows, L)))


def dreamt(world: WorldModel, actor: ActorCritic, context: Context) -> list[Tensor]:
    torch.manual_seed(1)
    rollout = world.imagine(actor.act, context, H)
    return [*rollout, torch.rand(3)]


@pytest.mark.parametrize(("layers", "latents"), [(1, "sampled"), (2, "sampled"), (3, "likeliest")])
@torch.no_grad()
def test_dreams_are_the_same(layers: int, latents: str, as_on_gpus: Callable[[], None]) -> None:
    world, actor = models(layers, latents=latents)
    context = contexts(world)
    plain = dreamt(world, actor, context)
    as_on_gpus()
    for result, expected in zip(dreamt(world, actor, context), plain, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    assert len(plain[1].unique()) == A


@torch.no_grad()
def test_compiled_dreams_are_one_graph_for_all_steps(
    as_on_gpus: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faster_imagination, "by_kernels", lambda _: True)  # pairs, as GPUs have them
    (world, actor), seen = models(), list[list[str]]()
    context = contexts(world)
    plain = dreamt(world, actor, context)

    def look(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        seen.append([str(node.target) for node in graph.graph.nodes if "sampling" in str(node.target)])
        return graph.forward

    as_on_gpus()
    torch.compiler.reset()
    begin, step = (torch.compile(part, backend=look, fullgraph=True) for part in (world.begin, world.imagine_step))
    compiled = with_methods(world, begin=begin, imagine_step=step)
    for result, expected in zip(dreamt(compiled, actor, context), plain, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    actions, tokens, states = (f"glamkit.sampling_{name}.default" for name in ("actions", "tokens", "states"))
    assert seen == [[tokens, states], [actions, tokens, states]]


@torch.no_grad()
def test_each_method_says_the_same(as_on_gpus: Callable[[], None]) -> None:
    world, actor = models()
    context, hidden = contexts(world), torch.randn(500, 16)

    def outputs() -> list[Tensor]:
        torch.manual_seed(1)
        states = world.predict_states(hidden)
        return [world.tokens(*context), states, actor.act(states), actor.act(states.view(5, 100, -1)), torch.rand(3)]

    plain = outputs()
    as_on_gpus()
    tokens, *others = outputs()
    torch.testing.assert_close(tokens, plain[0], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(*both) for both in zip(others, plain[1:], strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert world.tokens(*context).dtype == torch.float32 and torch.equal(world.tokens(*context), tokens)
        states = world.predict_states(hidden)
        assert states.dtype == torch.bfloat16 and torch.equal(states[:, -16:], hidden.bfloat16())
        assert torch.equal(states[:, :-16].view(-1, 4, 4).sum(-1), torch.ones(500, 4, dtype=torch.bfloat16))
        assert torch.equal(seeded(actor.act, states), seeded(lambda x: sample_categorical(actor.policy(x)), states))


def seeded(function: Callable[..., Tensor], *given: Any) -> Tensor:
    torch.manual_seed(1)
    return function(*given)


def test_they_are_for_gpus_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not imagination.supported(torch.empty(0), 1)
    monkeypatch.setattr(imagination, "has_kernels", lambda device: device.type == "meta")  # as GPUs have
    there = torch.empty(0, device="meta")
    assert not imagination.supported(there, 1)
    with torch.no_grad():
        assert imagination.supported(there, imagination.MOST) and not imagination.supported(there, imagination.MOST + 1)
        assert not imagination.supported(torch.empty(0), 1)


@torch.no_grad()
def test_what_is_not_drawn_from_the_prior_stays_as_it_is(
    as_on_gpus: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_gpus()
    monkeypatch.setattr(imagination, "states", None)
    hidden = torch.randn(5, 16)
    assert models(latents="likeliest")[0].predict_states(hidden).shape == (5, 32)
    drawn = models()[0]
    drawn.sample = torch.exp  # as somebody else may have it
    assert torch.equal(drawn.predict_states(hidden)[:, :16], drawn.prior(hidden).exp().flatten(-2))
    monkeypatch.setattr(imagination, "tokens", None)
    world = models(latents="probabilities")[0]
    world.remember(contexts(world))


# Kernels --------------------------------------------------------------------------------------------------------------


def inputs(
    rows: int, variables: int, classes: int, width: int, actions: int, units: int, dtype: torch.dtype, device: str
) -> list[list[Any]]:
    """Arguments of the three operations."""

    def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape).to(device, dtype)

    latent = variables * classes
    codes = F.one_hot(torch.randint(classes, (rows, variables)), classes).flatten(-2).to(device, dtype)
    latents = torch.cat([codes, drawn(rows, width, dtype=dtype)], -1)[:, :latent]  # as it stands in states
    weight = drawn(latent + actions, width).T
    to_units = [1 + 0.1 * drawn(units), 0.1 * drawn(units), drawn(actions, units, dtype=dtype) / units**0.5]
    logits, x = 3 * drawn(rows, latent, dtype=dtype), drawn(rows, units, dtype=dtype)
    uniform, other = torch.rand(rows, variables, 1).to(device), torch.rand(rows, 1).to(device)
    return [
        [latents, torch.randint(actions, (rows,)).to(device), weight, drawn(width), drawn(width), classes, 1e-5],
        [logits, uniform, drawn(rows, width), classes, 0.01, dtype],
        [x, other, *to_units, drawn(actions, dtype=dtype), 1e-5],
    ]


def compare(device: str, cases: list[dict[str, int]], least: float = 1) -> None:
    """The kernels against the plain operations; codes and actions are to be equal in `least` of all draws."""
    for case in cases:
        for dtype in (torch.float32, torch.bfloat16):
            first, second, third = inputs(**case, dtype=dtype, device=device)
            near(kernels.tokens(*first), plain_bodies.tokens(*on_the_cpu(first)))
            states, expected = kernels.states(*second), plain_bodies.states(*on_the_cpu(second))
            assert states.shape == expected.shape and states.dtype == dtype
            latent = second[0].shape[-1]
            codes, others = (part[:, :latent].float().cpu().reshape(-1, case["classes"]) for part in (states, expected))
            assert torch.equal(codes.sum(-1), torch.ones(len(codes))) and torch.equal(codes.max(-1)[0], codes.sum(-1))
            assert (codes == others).all(-1).float().mean() >= least
            if device != "cpu" or dtype == torch.float32:  # the interpreter cuts digits off
                assert torch.equal(states[:, latent:].cpu(), expected[:, latent:])
            actions = kernels.actions(*third)
            assert actions.dtype == torch.long and actions.shape == (case["rows"],)
            assert (actions.cpu() == plain_bodies.actions(*on_the_cpu(third))).float().mean() >= min(least, 0.995)


def compare_odd(device: str) -> None:
    """Latents that are not one-hot, rows of contexts, weights that lie as in a layer, and draws at the edge."""
    for odd in ([0.2, 0.3, 0.1, 0.4, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, -1], [2, 0, 0, 0, 0], [0, 0, -4, 0, 9]):
        first, second, third = inputs(**CASES[0], dtype=torch.float32, device=device)
        first[0][2, 5:10] = torch.tensor(odd)
        near(kernels.tokens(*first), plain_bodies.tokens(*on_the_cpu(first)))
    first[0], first[1], first[2] = first[0].view(3, 3, 15), first[1].view(3, 3), first[2].contiguous()
    near(kernels.tokens(*first), plain_bodies.tokens(*on_the_cpu(first)))
    for edge, index in ((0.0, 0), (1.0, -1)):
        second[1].fill_(edge)
        third[1].fill_(edge)
        assert (kernels.states(*second)[:, :15].reshape(9, 3, 5)[..., index] == 1).all()
        assert (kernels.actions(*third) == index % 3).all()


def on_the_cpu(arguments: list[Any]) -> list[Any]:
    return [x.cpu() if isinstance(x, Tensor) else x for x in arguments]


def near(got: Tensor, exact: Tensor) -> None:
    assert got.shape == exact.shape and got.dtype == torch.float32
    torch.testing.assert_close(got.cpu(), exact, rtol=0, atol=1e-5 * float(exact.abs().max() + 1e-3))


def test_the_interpreter_computes_the_plain_operations() -> None:
    interpret("from test_sampling import *; compare('cpu', CASES); compare_odd('cpu')")


def check_what_compilers_are_told(device: str) -> None:
    operations = (
        torch.ops.glamkit.sampling_tokens,
        torch.ops.glamkit.sampling_states,
        torch.ops.glamkit.sampling_actions,
    )
    for dtype in (torch.float32, torch.bfloat16):
        for operation, given in zip(operations, inputs(**CASES[0], dtype=dtype, device=device), strict=True):
            torch.library.opcheck(operation.default, given, test_utils=LOOKS)
    tokens = inputs(**CASES[0], dtype=torch.float32, device=device)[0]
    tokens[0], tokens[1] = tokens[0].view(3, 3, 15), tokens[1].view(3, 3)
    torch.library.opcheck(operations[0].default, tokens, test_utils=LOOKS)


def test_compilers_are_told_the_truth() -> None:
    check_what_compilers_are_told("cpu")


def test_a_gpu_is_given_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that is only imagined: shapes alone."""
    monkeypatch.setattr(device, "TRITON", True)
    with FakeTensorMode(), torch.no_grad():
        hidden, latents = torch.empty(7, 20, device="cuda"), torch.empty(7, 15, device="cuda")
        assert imagination.supported(hidden, 1)
        assert imagination.states(latents, latents, hidden, 5, 0.01, torch.bfloat16).dtype == torch.bfloat16
        weight, vector = torch.empty(20, 18, device="cuda"), torch.empty(20, device="cuda")
        actions = torch.empty(7, dtype=torch.long, device="cuda")
        assert imagination.tokens(latents, actions, weight, vector, vector, 5, 1e-5).shape == (7, 20)


@pytest.mark.cuda
def test_the_gpu_computes_the_plain_operations() -> None:
    assert device.TRITON, "this GPU has no Triton, so it uses the plain code"
    compare("cuda", CASES)
    compare("cuda", [PUBLISHED, {**PUBLISHED, "actions": 18}], least=0.999)
    compare_odd("cuda")
    check_what_compilers_are_told("cuda")


@pytest.mark.cuda
def test_on_a_gpu_the_same_inputs_give_the_same_bits() -> None:
    each = kernels.tokens, kernels.states, kernels.actions
    for kernel, given in zip(each, inputs(**PUBLISHED, dtype=torch.bfloat16, device="cuda"), strict=True):
        assert torch.equal(kernel(*given), kernel(*given))


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@torch.no_grad()
def test_dreams_on_a_gpu_choose_so_compiled_and_recorded() -> None:
    world, actor = (part.cuda() for part in models(width=32))
    context = Context(*(part.cuda() for part in contexts(world, 256)))
    step = torch.compile(world.imagine_step, fullgraph=True, options={"fallback_random": True})

    def imagined(latents: Tensor, actions: Tensor, compiled: bool) -> list[Tensor]:
        model = with_methods(world, imagine_step=step) if compiled else world
        with torch.autocast("cuda", torch.bfloat16):
            return list(model.imagine(actor.act, Context(latents, actions), H))

    def several(function: Callable[..., list[Tensor]], compiled: bool) -> list[list[Tensor]]:
        torch.manual_seed(1)
        return [[part.clone() for part in function(*context, compiled)] for _ in range(4)]

    eager, compiled = several(imagined, False), several(imagined, True)
    recorded = several(Recorded(imagined, Recorder(torch.device("cuda"))), True)
    codes = compiled[0][0][..., : world.latent].unflatten(-1, (4, 4))
    assert compiled[0][0].dtype == torch.bfloat16 and (codes.max(-1)[0] == 1).all() and (codes.sum(-1) == 1).all()
    assert (eager[0][1][:, 0] == compiled[0][1][:, 0]).float().mean() > 0.97
    for one, other in zip(recorded, compiled, strict=True):
        assert all(torch.equal(*both) for both in zip(one, other, strict=True))

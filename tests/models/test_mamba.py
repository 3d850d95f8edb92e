"""The Mamba block: four ways to run it, one result, plain and accelerated; and the scan's hand-written gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.errors import GlamkitError
from glamkit.models.mamba import Mamba
from glamkit.ops.scan import selective_scan
from glamkit.training.accelerate import accelerate
from glamkit.training.accelerate.rules import missing_mamba_ssm, select_kernel
from glamkit.training.accelerate.windows import FusedMamba


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def lively(width: int = 16, state: int = 4, conv: int = 4) -> Mamba:
    """A block whose memory matters: step sizes as large as training makes them, and decays that differ."""
    block = Mamba(width, state, conv)
    with torch.no_grad():
        block.dt_proj.bias.uniform_(-2, 1)
        block.A_log.add_(0.2 * torch.randn_like(block.A_log))
        block.D.uniform_(0.5, 1.5)
        block.x_proj.weight.mul_(3)
    return block


def fast(block: Mamba) -> Mamba:
    """The same block, accelerated."""
    accelerate(block, block.D.device)
    return block


def plain_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The recurrence as the paper writes it (eq. 2a and 2b, with B discretised as dt B)."""
    h, outputs = torch.zeros(u.shape[0], *A.shape, dtype=u.dtype, device=u.device), []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + dt[:, t, :, None] * B[:, t, None] * u[:, t, :, None]
        outputs.append((h * C[:, t, None]).sum(-1))
    return torch.stack(outputs, 1)


def plain_block(block: Mamba, x: Tensor) -> Tensor:
    """The whole block (paper, figure 3) without any of its shortcuts."""
    inputs, gate = block.in_proj(x).chunk(2, -1)
    taps = block.conv1d.weight.squeeze(1)
    padded = F.pad(inputs, (0, 0, block.conv - 1, 0))
    u = sum(padded[:, k : k + x.shape[1]] * taps[:, k] for k in range(block.conv))
    u = F.silu(u + block.conv1d.bias)
    low, B, C = block.x_proj(u).split(block.sizes, -1)
    y = plain_scan(u, F.softplus(block.dt_proj(low)), -block.A_log.exp(), B, C)
    return block.out_proj((y + block.D * u) * F.silu(gate))


def random_scan(dtype: torch.dtype, device: str = "cpu", size: tuple[int, ...] = (2, 5, 3, 4)) -> list[Tensor]:
    batch, steps, inner, state = size
    u, B, C = torch.randn(batch, steps, inner), torch.randn(batch, steps, state), torch.randn(batch, steps, state)
    dt, A = torch.rand(batch, steps, inner) + 0.05, -torch.rand(inner, state) - 0.1
    return [x.to(device, dtype).requires_grad_() for x in (u, dt, A, B, C)]


def test_names_and_shapes_are_those_of_mamba_ssm() -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in Mamba(64).named_parameters()}
    assert shapes == {
        "A_log": (128, 16),
        "D": (128,),
        "in_proj.weight": (256, 64),
        "conv1d.weight": (128, 1, 4),
        "conv1d.bias": (128,),
        "x_proj.weight": (4 + 2 * 16, 128),
        "dt_proj.weight": (128, 4),
        "dt_proj.bias": (128,),
        "out_proj.weight": (64, 128),
    }


def test_initialisation_is_that_of_mamba_ssm() -> None:
    block = Mamba(64)
    assert torch.allclose(-block.decay(), torch.arange(1, 17).float().expand(128, 16))
    assert (block.D == 1).all()
    dt = F.softplus(block.dt_proj.bias)
    assert 9.9e-4 < dt.min() < 3e-3
    assert 3e-2 < dt.max() < 0.101
    assert 0.9 / 2 < block.dt_proj.weight.abs().max() <= 1 / 2  # uniform within rank ** -0.5


@pytest.mark.parametrize("conv", [2, 4])
@pytest.mark.parametrize("steps", [1, 3, 9])
def test_forward_is_the_paper_s_block(steps: int, conv: int) -> None:
    block, x = lively(conv=conv), torch.randn(2, steps, 16)
    assert torch.allclose(block(x), plain_block(block, x), atol=1e-5)
    assert torch.allclose(fast(block)(x), plain_block(block, x), atol=1e-5)


def test_a_later_token_changes_nothing_before_it() -> None:
    block, x = lively(), torch.randn(2, 9, 16)
    changed = x.clone()
    changed[:, 5] += 1
    before, after = block(x), block(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().amax((0, 2)).min() > 1e-4  # and everything after it


def windows(block: Mamba, x: Tensor, size: int) -> Tensor:
    """The last output of each window of `size` tokens (B, T, width) on its own: (B, T - size + 1, width)."""
    projected, count = block.in_proj(x), x.shape[1] - size + 1
    return block.step_window([projected[:, place : place + count] for place in range(size)], [])[0]


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_windows_are_an_explicit_loop_over_forward(size: int) -> None:
    block, x = fast(lively()), torch.randn(2, 9, 16)
    loop = torch.stack([block(x[:, end - size : end])[:, -1] for end in range(size, 10)], 1)
    assert torch.allclose(windows(block, x, size), loop, atol=1e-5)


def test_windows_have_the_loop_s_gradients() -> None:
    block, x = fast(lively()), torch.randn(2, 7, 16)
    weight = torch.randn(2, 4, 16)
    loop = torch.stack([block(x[:, end - 4 : end])[:, -1] for end in range(4, 8)], 1)
    wanted = torch.autograd.grad((loop * weight).sum(), list(block.parameters()))
    got = torch.autograd.grad((windows(block, x, 4) * weight).sum(), list(block.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(got, wanted, strict=True))


def test_last_is_forward_s_last() -> None:
    block, x = fast(lively()), torch.randn(3, 6, 16)
    assert torch.allclose(windows(block, x, 6)[:, 0], block(x)[:, -1], atol=1e-5)


@pytest.mark.parametrize("prepare", [lambda block: block, fast], ids=["plain", "accelerated"])
def test_steps_are_the_scan(prepare: Callable[[Mamba], Mamba]) -> None:
    block, x = prepare(lively()), torch.randn(3, 9, 16)
    state, outputs = block.start(3), []
    for token in x.unbind(1):
        output, state = block.step(token, state)
        outputs.append(output)
    assert torch.allclose(torch.stack(outputs, 1), block(x), atol=1e-5)


def test_the_scan_is_a_plain_loop() -> None:
    inputs = random_scan(torch.float64)
    assert torch.allclose(selective_scan(*inputs), plain_scan(*inputs), atol=1e-12)


def test_the_scan_s_gradients_are_those_of_a_plain_loop() -> None:
    inputs = random_scan(torch.float64)
    weight = torch.randn(2, 5, 3, dtype=torch.float64)
    wanted = torch.autograd.grad((plain_scan(*inputs) * weight).sum(), inputs)
    got = torch.autograd.grad((selective_scan(*inputs) * weight).sum(), inputs)
    for name, mine, theirs in zip(("u", "dt", "A", "B", "C"), got, wanted, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10), name


@pytest.mark.parametrize("channels_first", [False, True])
def test_compilers_are_told_the_truth_about_the_scan(channels_first: bool) -> None:
    u, dt, A, B, C = (x.detach() for x in random_scan(torch.float32))
    if channels_first:  # as a convolution leaves it
        u, dt = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (u, dt))
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.glamkit.scan.default, (u, dt, A, B, C), test_utils=checks)
    y, states = torch.ops.glamkit.scan(u, dt, A, B, C)
    backward = (y.contiguous(), u, dt, A, B, C, states)
    torch.library.opcheck(torch.ops.glamkit.scan_backward.default, backward, test_utils=checks)


def test_all_paths_agree_under_autocast_and_keep_the_scan_in_float32() -> None:
    block, x = fast(lively()), torch.randn(2, 6, 16)
    exact = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        state = block.start(2)
        for token in x.unbind(1):
            stepped, state = block.step(token, state)
        paths = [block(x)[:, -1], windows(block, x, 6)[:, 0], stepped]
    assert state.ssm.dtype == torch.float32
    for path in paths:
        assert (path.float() - exact[:, -1]).abs().max() < 0.05 * exact.abs().max()


def test_kernels_are_chosen_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    block = fast(Mamba(16))
    assert select_kernel(block, "auto", torch.device("cpu")) == "glamkit" and not isinstance(block, FusedMamba)
    with monkeypatch.context() as patch:
        patch.setattr("glamkit.training.accelerate.rules.missing_mamba_ssm", lambda: "")
        assert select_kernel(block, "auto", torch.device("cuda")) == "glamkit" and not isinstance(block, FusedMamba)
        assert select_kernel(block, "mamba-ssm", torch.device("cuda")) == "mamba-ssm"
        assert type(block).scan is FusedMamba.scan
    with pytest.raises(GlamkitError, match=r"runtime\.kernel = 'mamba-ssm' cannot be used"):
        select_kernel(block, "mamba-ssm", torch.device("cpu"))


@pytest.mark.cuda
def test_mamba_ssm_s_kernel_agrees_with_ours() -> None:
    reason = missing_mamba_ssm()
    if reason:
        pytest.skip(f"mamba-ssm does not load here: {reason}")
    device = torch.device("cuda")
    ours, theirs = fast(lively(64, 16).to(device)), Mamba(64).to(device)
    theirs.load_state_dict(ours.state_dict())
    assert select_kernel(theirs, "mamba-ssm", device) == "mamba-ssm" and isinstance(theirs, FusedMamba)
    x = torch.randn(4, 68, 64, device=device)
    weight = torch.randn_like(x)
    results = []
    for block in (ours, theirs):
        token = x.clone().requires_grad_()
        output = block(token)
        gradients = torch.autograd.grad((output * weight).sum(), [token, *block.parameters()])
        results.append([output, *gradients])
    names = ["output", "x", *(name for name, _ in ours.named_parameters())]
    for name, mine, fused in zip(names, *results, strict=True):
        assert (mine - fused).abs().max() < 2e-3 * mine.abs().max(), name  # TF32 may be on; atomic adds in theirs


@pytest.mark.cuda
def test_our_scan_on_the_gpu_is_the_one_on_the_cpu() -> None:
    here = random_scan(torch.float32, size=(2, 17, 8, 4))
    there = [x.detach().cuda().requires_grad_() for x in here]
    results = []
    for inputs in (here, there):
        output = selective_scan(*inputs)
        results.append([output, *torch.autograd.grad(output.square().sum(), inputs)])
    for mine, other in zip(*results, strict=True):
        assert torch.allclose(mine, other.cpu(), rtol=1e-3, atol=1e-3)

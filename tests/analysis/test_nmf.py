"""The batched factorisation: its invariants, and scikit-learn's as the measure."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import NMF
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from analysis import nmf
from analysis.nmf import factorise


def residual(x: Tensor, w: Tensor, h: Tensor) -> Tensor:
    return (x.double() - w.double() @ h.double()).square().sum(dim=(1, 2))


def stack(n: int, p: int, d: int, seed: int = 0) -> Tensor:
    return torch.rand(n, p, d, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(3, 12), st.integers(3, 20))
def test_factors_are_non_negative_and_the_objective_is_theirs_and_never_rises(seed: int, p: int, d: int) -> None:
    x = stack(4, p, d, seed)
    factors = factorise(x, 3)
    assert factors.w.min() >= 0
    assert factors.h.min() >= 0
    assert torch.allclose(factors.objective, residual(x, factors.w, factors.h), atol=1e-4)
    assert (factors.history.diff(dim=0) <= 0).all()


def test_an_exact_product_is_found() -> None:
    x = stack(6, 9, 1, seed=1) @ stack(6, 1, 40, seed=2)
    assert (factorise(x, 3).objective < 1e-4 * x.square().sum(dim=(1, 2))).all()


def test_mean_objective_is_scikit_learns() -> None:
    weights = torch.randn(12, 25, 64, generator=torch.Generator().manual_seed(3))
    x = torch.cat([weights.clamp(min=0), (-weights).clamp(min=0)], dim=2)
    theirs = []
    for matrix in x.numpy():
        model = NMF(3, max_iter=1000)
        theirs.append(float(np.square(matrix - model.fit_transform(matrix) @ model.components_).sum()))
    assert factorise(x, 3).objective.mean().item() <= 1.0005 * np.mean(theirs)


def test_zero_and_constant_matrices_come_out_finite() -> None:
    x = torch.stack([torch.zeros(9, 8), torch.ones(9, 8), stack(1, 9, 8)[0]])
    factors = factorise(x, 3)
    assert factors.w.isfinite().all()
    assert factors.h.isfinite().all()
    assert (factors.w[0] @ factors.h[0] == 0).all()
    assert torch.allclose(factors.w[1] @ factors.h[1], torch.ones(9, 8), atol=1e-3)


def test_the_same_input_gives_the_same_bits_and_a_neuron_does_not_depend_on_its_neighbours() -> None:
    x = stack(7, 25, 30)
    first, second = factorise(x, 3), factorise(x, 3)
    assert torch.equal(first.w, second.w)
    alone = factorise(x[3:4], 3)
    assert alone.objective[0].item() == pytest.approx(first.objective[3].item(), rel=1e-4)


@pytest.mark.parametrize(("x", "rank"), [(torch.full((1, 4, 4), -1.0), 3), (torch.full((1, 4, 4), torch.nan), 3)])
def test_entries_that_have_no_factorisation_are_refused(x: Tensor, rank: int) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        factorise(x, rank)


def test_a_rank_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        factorise(stack(1, 4, 9), 5)


def test_tall_matrices_are_started_from_their_smaller_gram_matrix() -> None:
    x = stack(2, 600, 8)
    tall, wide = factorise(x, 3), factorise(x.mT.contiguous(), 3)
    assert tall.objective.tolist() == pytest.approx(wide.objective.tolist(), rel=0.05)
    assert torch.allclose(tall.objective, residual(x, tall.w, tall.h), rtol=1e-3)


@pytest.mark.parametrize(("p", "d"), [(4, 4), (4, 6), (3, 3)])
def test_matrices_hardly_larger_than_the_rank_are_factorised(p: int, d: int) -> None:
    x = stack(5, p, d)
    factors = factorise(x, 3)
    assert torch.allclose(factors.objective, residual(x, factors.w, factors.h), atol=1e-4)
    assert (factors.objective < 0.2 * x.square().sum(dim=(1, 2))).all()


@pytest.mark.parametrize("scale", [2.0**-120, 1e-30, 1e-6, 1.37, 1.8, 1e25, 2.0**120])
def test_a_matrix_of_any_scale_has_the_same_w(scale: float) -> None:
    x = stack(5, 9, 20)
    ours, theirs = factorise(x, 3), factorise((x.double() * scale).float(), 3)
    assert torch.allclose(ours.w, theirs.w, atol=1e-4)
    assert theirs.objective.tolist() == pytest.approx((ours.objective * scale**2).tolist(), rel=1e-5)


@pytest.fixture
def careless() -> Iterator[None]:
    """A process that lets matrix products round to bfloat16, as training does."""
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield
    torch.set_float32_matmul_precision("highest")


def test_products_are_exact_whatever_the_process_allows(request: pytest.FixtureRequest) -> None:
    x = stack(4, 25, 30)
    exact = factorise(x, 3)
    request.getfixturevalue("careless")
    assert (x @ x.mT).dtype == torch.bfloat16
    assert torch.equal(factorise(x, 3).w, exact.w)
    assert (x @ x.mT).dtype == torch.bfloat16
    assert torch.get_float32_matmul_precision() == "medium"


class Calls(TorchDispatchMode):
    """Counts what is asked of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[op.overloadpacket._qualified_op_name] += 1
        return op(*args, **(kwargs or {}))


def test_the_host_waits_for_the_device_only_when_it_looks_who_has_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nmf._LOOK_EVERY, "cpu", nmf._LOOK_EVERY["cuda"])
    x = stack(40, 25, 30)
    with Calls() as calls:
        iterations = len(factorise(x, 3).history)
    looks = iterations // nmf._LOOK_EVERY["cuda"]
    assert looks >= 2
    checks_of_x = 2
    assert calls.count["aten::_local_scalar_dense"] == checks_of_x
    assert calls.count["aten::nonzero"] <= 2 * looks
    assert calls.count["aten::masked_select"] == 0


def test_a_matrix_that_rounding_keeps_from_getting_better_is_done() -> None:
    """Of these, one met a rise at every step for 150 iterations."""
    weights = 0.02 * torch.randn(512, 512, 3, 3, generator=torch.Generator().manual_seed(0))
    flat = weights.permute(0, 2, 3, 1).reshape(512, 9, 512)
    assert len(factorise(torch.cat([flat.clamp(min=0), (-flat).clamp(min=0)], dim=2), 3).history) < 100

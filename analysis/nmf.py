"""Non-negative matrix factorisation of many small matrices at once: X ~ W @ H in scikit-learn's sense.

Axis letters: `n` matrices (neurons), `p` rows (kernel positions), `d` columns (features), `r` factors.
All matrices of a block go through the same steps together; one that has converged leaves the block.

Method: hierarchical alternating least squares (Cichocki and Phan 2009, "Fast local algorithms for large scale NMF")
from the NNDSVD start of Boutsidis and Gallopoulos 2008. The first passes are those of scikit-learn's coordinate
descent: they decide how W and H share the scale of each factor, which X ~ W @ H leaves open. The others make two sweeps
for each pass over X, extrapolated as in Ang and Gillis 2019 (arXiv:1805.06604, algorithm 3). There are no random
numbers in it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

_BLOCK_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}  # of X worked on at a time: fits a CPU's caches, bounds a GPU's
_LOOK_EVERY = {"cpu": 1, "cuda": 8}  # iterations between checks for convergence, for which the host waits
# Entries of a small matrix: 163 channels of 5x5. The factors of kernels with few channels settle slowly, and what
# float32 leaves of them may be rounding, since they are nearly of rank 3.
_SMALL = 8192
_SETTLING, _SETTLING_SMALL = 100, 60  # passes as scikit-learn makes them; fewer put pictures off by over 0.01
_SWEEPS = 2  # a factor is swept twice for each product with X, which costs most
# How far a step goes beyond the factor found, and how that share grows and shrinks: the values of Ang and Gillis 2019,
# section 5, whose results hardly depend on them.
_BETA, _BETA_GROWTH, _BETA_LIMIT_GROWTH, _BETA_DECAY = 0.5, 1.05, 1.01, 1.5
_SCALES = (2.0**-126, 2.0**126)  # float32 numbers between them have a reciprocal
_TINY = 1e-30  # keeps divisions finite, and is far below anything that float32 adds to a number near one
_FLOOR = 1e-8  # of a matrix's norm: a factor's square below it has vanished


@dataclass(frozen=True)
class Factors:
    """`w` [n, p, r] and `h` [n, r, d], both non-negative; `objective` [n] is the squared Frobenius norm of X - W @ H.

    `history` [iterations, n] is the objective after each iteration, constant from where a matrix had converged;
    it never rises.
    """

    w: Float[Tensor, "n p r"]
    h: Float[Tensor, "n r d"]
    objective: Float64[Tensor, " n"]
    history: Float64[Tensor, "iterations n"]


def factorise(x: Float[Tensor, "n p d"], rank: int, tolerance: float = 1e-6, max_iterations: int = 200) -> Factors:
    """Factorise each matrix of a stack; a matrix's result does not depend on the others beyond rounding.

    Stops for each matrix when an iteration lowers its objective by less than `tolerance` times its value, or when a
    step without extrapolation does not lower it. A zero matrix gives zero factors. The scale of a matrix changes
    its W by no more than rounding, since each is divided by its largest entry before anything else. All products are
    made in full float32, whatever the process allows elsewhere (TF32, bfloat16, autocast).

    Raises:
        ValueError: the rank is larger than the matrices, or X has negative or non-finite entries.
    """
    dtype, (_, p, d) = x.dtype, x.shape
    if not 1 <= rank <= min(p, d):
        raise ValueError(f"rank {rank} does not fit {p}x{d} matrices; it must be 1 to {min(p, d)}")
    if p * d <= _SMALL:
        x = x.double()
    blocks, scales = [], []
    with _full_precision(x.device):
        for part in x.split(block_size(p, d, x.device)):
            scales.append(_scale(part))
            blocks.append(_Block(part * scales[-1].reciprocal().to(x.dtype)[:, None, None], rank, max_iterations))
            blocks[-1].run(tolerance)
    iterations, scale = max(block.iterations for block in blocks), torch.cat(scales)
    return Factors(
        w=torch.cat([block.w for block in blocks]).mT.contiguous().to(dtype),
        h=(torch.cat([block.h for block in blocks]) * scale.to(x.dtype)[:, None, None]).to(dtype),
        objective=torch.cat([block.objective for block in blocks]) * scale.square(),
        history=torch.cat([block.history[:iterations] for block in blocks], dim=1) * scale.square(),
    )


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Matrix products in full float32 precision: an objective is a small difference of large numbers."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]  # set at import
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def block_size(p: int, d: int, device: torch.device) -> int:
    """How many float32 matrices of p x d are worked on at a time."""
    return max(1, _BLOCK_BYTES[device.type] // (4 * p * d))


def _scale(x: Float[Tensor, "n p d"]) -> Float64[Tensor, " n"]:
    """The largest entry of each matrix, by which it is divided; 1 for a zero matrix."""
    high = x.amax(dim=(1, 2))
    if not (x.amin() >= 0 and (high < torch.inf).all()):  # NaN fails both
        raise ValueError("a non-negative factorisation needs finite, non-negative entries")
    return torch.where(high > 0, high, 1).double().clamp(*_SCALES)


def nndsvd(x: Float[Tensor, "n p d"], rank: int) -> tuple[Float[Tensor, "n r p"], Float[Tensor, "n r d"]]:
    """Start (W^T, H) from the positive parts of the leading singular vectors; a factor's W and H have the same norm.

    Does not depend on the signs that the eigendecomposition happens to give, which is that of the smaller Gram matrix.

    Source: Boutsidis and Gallopoulos 2008, "SVD based initialization".
    """
    if x.shape[1] > x.shape[2]:
        h, w = nndsvd(x.mT, rank)
        return w, h
    values, vectors = torch.linalg.eigh(x @ x.mT)
    sigma = values[:, -rank:].flip(-1).clamp(min=0).sqrt()[:, :, None]
    left = vectors[:, :, -rank:].flip(-1).mT
    noise = 1e-6 * sigma[:, :1]  # float32 knows nothing of singular values below it
    right = (left @ x) / torch.maximum(sigma, noise).clamp(min=_TINY)
    sides = [(left.clamp(min=0), right.clamp(min=0)), ((-left).clamp(min=0), (-right).clamp(min=0))]
    norms = [(u.norm(dim=-1, keepdim=True), v.norm(dim=-1, keepdim=True)) for u, v in sides]
    weights = [u * v for u, v in norms]
    first = weights[0] > weights[1]
    u, v, weight = (
        torch.where(first, a, b)
        for a, b in zip((*_unit(sides[0], norms[0]), weights[0]), (*_unit(sides[1], norms[1]), weights[1]), strict=True)
    )
    scale = (sigma * weight).sqrt()
    w, h = u * scale, v * scale
    w[:, 0], h[:, 0] = left[:, 0].abs() * sigma[:, 0].sqrt(), right[:, 0].abs() * sigma[:, 0].sqrt()
    return w, h


class _Block:
    """Factors of a block of matrices while they are being improved; W is kept transposed, [n, r, p]."""

    def __init__(self, x: Float[Tensor, "n p d"], rank: int, max_iterations: int) -> None:
        self.x = x
        self.squares = torch.linalg.vector_norm(x.flatten(1), dim=1).square()
        self.w, self.h = nndsvd(x, rank)
        self.objective = torch.full_like(self.squares, torch.inf)
        self.history = self.squares.repeat(max_iterations, 1)
        self.iterations = 0

    def run(self, tolerance: float) -> None:
        """Improve all matrices until each has converged or the iterations are used up."""
        index = torch.arange(len(self.x), device=self.x.device)
        state = _Active.begin(self.x, self.squares, self.w, self.h)
        every = _LOOK_EVERY[self.x.device.type]
        while len(index) and self.iterations < len(self.history):
            state.improve(tolerance)
            self.history[self.iterations, index] = state.objective
            self.iterations += 1
            if self.iterations % every:
                continue
            going = state.going.nonzero().flatten()
            # Removing the converged ones costs a copy of the block; it pays once they are a quarter.
            if 4 * len(going) < 3 * len(index):
                ended = (~state.going).nonzero().flatten()
                self._store(index[ended], state.keep(ended))
                index, state = index[going], state.keep(going)
        self._store(index, state)

    def _store(self, index: Int[Tensor, " m"], state: "_Active") -> None:
        """Take over factors with a last plain sweep of W, so that objective and factors belong together."""
        self.history[self.iterations :, index] = state.objective
        cross, gram = state.h @ state.x.mT, state.h @ state.h.mT
        w = _swept(gram, cross, state.w, state.floor)
        objective = state.squares + _excess(w, cross, gram)
        self.w[index], self.h[index], self.objective[index] = w, state.h, objective.clamp(min=0)


@dataclass(kw_only=True)
class _Active:
    """Matrices being improved, with their extrapolated factors (`ahead`) and step lengths (`beta`).

    `going` [n] says which have not converged; the others do not change. `plain` [n] says which take their next step
    without extrapolation. No step waits for a result of the device.
    """

    x: Float[Tensor, "n p d"]
    squares: Float[Tensor, " n"]
    w: Float[Tensor, "n r p"]
    h: Float[Tensor, "n r d"]
    w_ahead: Float[Tensor, "n r p"]
    h_ahead: Float[Tensor, "n r d"]
    floor: Float[Tensor, "n 1 1"]
    beta: Float[Tensor, " n"]
    beta_limit: Float[Tensor, " n"]
    objective: Float[Tensor, " n"]
    going: Bool[Tensor, " n"]
    plain: Bool[Tensor, " n"]

    @classmethod
    def begin(cls, x: Tensor, squares: Tensor, w: Tensor, h: Tensor) -> "_Active":
        """All matrices before their first step."""
        going = torch.ones_like(squares, dtype=torch.bool)
        floor = (_FLOOR * squares.sqrt()).clamp(min=_TINY)[:, None, None]
        w, h = _settled(x, w, h, floor)
        return cls(
            x=x, squares=squares, w=w, h=h, w_ahead=w, h_ahead=h,
            floor=floor, beta=torch.full_like(squares, _BETA), beta_limit=torch.ones_like(squares),
            objective=torch.full_like(squares, torch.inf), going=going, plain=~going,
        )  # fmt: skip

    def improve(self, tolerance: float) -> None:
        """One iteration. A matrix whose objective would rise goes back a step."""
        ahead = 1 + torch.where(self.plain, 0, self.beta)[:, None, None]
        h = _swept(self.w_ahead @ self.w_ahead.mT, self.w_ahead @ self.x, self.h_ahead, self.floor)
        h_ahead = torch.lerp(self.h, h, ahead)
        cross, gram = h_ahead @ self.x.mT, h_ahead @ h_ahead.mT
        w = _swept(gram, cross, self.w_ahead, self.floor)
        objective = self.squares + _excess(w, cross, gram)
        worse = objective > self.objective
        converged = torch.where(worse, self.plain, self.objective - objective <= tolerance * objective.abs())
        better = self.going & ~worse
        moved = better[:, None, None]
        self.w_ahead = torch.lerp(self.w, w, ahead * moved)
        self.h_ahead = torch.where(moved, h_ahead, self.h)
        self.w, self.h = torch.where(moved, w, self.w), torch.where(moved, h, self.h)
        self.objective = torch.where(better, objective, self.objective)
        self.beta_limit = torch.where(worse, self.beta, (self.beta_limit * _BETA_LIMIT_GROWTH).clamp(max=1))
        grown = torch.minimum(self.beta * _BETA_GROWTH, self.beta_limit)
        self.beta = torch.where(worse, self.beta / _BETA_DECAY, grown)
        self.going, self.plain = self.going & ~converged, worse

    def keep(self, chosen: Int[Tensor, " m"]) -> "_Active":
        """Only the chosen matrices."""
        return type(self)(**{name: tensor[chosen] for name, tensor in vars(self).items()})


def _settled(
    x: Float[Tensor, "n p d"], w: Float[Tensor, "n r p"], h: Float[Tensor, "n r d"], floor: Float[Tensor, "n 1 1"]
) -> tuple[Float[Tensor, "n r p"], Float[Tensor, "n r d"]]:
    """The first passes: W, then H, one sweep each."""
    for _ in range(_SETTLING_SMALL if x[0].numel() <= _SMALL else _SETTLING):
        w = _swept(h @ h.mT, h @ x.mT, w, floor, sweeps=1)
        h = _swept(w @ w.mT, w @ x, h, floor, sweeps=1)
    return w, h


def _swept(
    gram: Float[Tensor, "n r r"],
    cross: Float[Tensor, "n r m"],
    factor: Float[Tensor, "n r m"],
    floor: Float[Tensor, "n 1 1"],
    sweeps: int = _SWEEPS,
) -> Float[Tensor, "n r m"]:
    """A factor improved row by row, each by its exact non-negative least squares given the others.

    f_k <- max(0, f_k + (cross_k - gram_k f) / gram_kk), with the division done once for all rows. A row whose partner
    has vanished (its square is below `floor`) hardly moves instead of running away.
    """
    scale = torch.maximum(gram.diagonal(dim1=1, dim2=2)[:, :, None], floor).reciprocal()
    target = cross * scale
    others = torch.addcmul(torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device), gram, scale, value=-1)
    factor = factor.clone()
    for _ in range(sweeps):
        for k in range(factor.shape[1]):
            row = slice(k, k + 1)
            torch.clamp(torch.baddbmm(target[:, row], others[:, row], factor), min=0, out=factor[:, row])
    return factor


def _excess(
    w: Float[Tensor, "n r p"], cross: Float[Tensor, "n r p"], gram: Float[Tensor, "n r r"]
) -> Float[Tensor, " n"]:
    """|X - W^T H|^2 - |X|^2, where `cross` is H X^T and `gram` H H^T."""
    return (w * torch.baddbmm(cross, gram, w, beta=-2)).sum(dim=(1, 2))


def _unit(vectors: tuple[Tensor, Tensor], norms: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return vectors[0] / norms[0].clamp(min=_TINY), vectors[1] / norms[1].clamp(min=_TINY)

"""Non-negative matrix factorisation of many small matrices at once: X ~ W @ H in scikit-learn's sense.

Axis letters: `n` matrices (neurons), `p` rows (kernel positions), `d` columns (features), `r` factors.
All matrices of a block go through the same steps together; one that has converged leaves the block.

Method: hierarchical alternating least squares (Cichocki and Phan 2009, "Fast local algorithms for large scale NMF"),
two sweeps for each pass over X, extrapolated as in Ang and Gillis 2019 (arXiv:1805.06604, algorithm 3), from
the NNDSVDa start of Boutsidis and Gallopoulos 2008. There are no random numbers in it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}  # of X worked on at a time: fits a CPU's caches, bounds a GPU's
_SWEEPS = 2
_BETA, _BETA_GROWTH, _BETA_LIMIT_GROWTH, _BETA_DECAY = 0.5, 1.05, 1.01, 1.5
_TINY = 1e-30
_FLOOR = 1e-8  # of a matrix's norm: a factor's square below it has vanished


@dataclass(frozen=True)
class Factors:
    """`w` [n, p, r] and `h` [n, r, d], both non-negative; `objective` [n] is the squared Frobenius norm of X - W @ H.

    `history` [iterations, n] is the objective after each iteration, constant from where a matrix had converged;
    it never rises.
    """

    w: Float[Tensor, "n p r"]
    h: Float[Tensor, "n r d"]
    objective: Float[Tensor, " n"]
    history: Float[Tensor, "iterations n"]


def factorise(x: Float[Tensor, "n p d"], rank: int, tolerance: float = 3e-5, max_iterations: int = 200) -> Factors:
    """Factorise each matrix of a stack; a matrix's result does not depend on the others beyond rounding.

    Stops for each matrix when an iteration lowers its objective by less than `tolerance` times its value.
    A zero matrix gives zero factors.

    Raises:
        ValueError: the rank is larger than the matrices, or X has negative or non-finite entries.
    """
    _, p, d = x.shape
    if not 1 <= rank <= min(p, d):
        raise ValueError(f"rank {rank} does not fit matrices of {p}x{d}; it must lie in 1 to {min(p, d)}")
    blocks = []
    for part in x.split(block_size(p, d, x.device)):
        _require_non_negative(part)
        blocks.append(_Block(part, rank, max_iterations))
        blocks[-1].run(tolerance)
    iterations = max(block.iterations for block in blocks)
    return Factors(
        w=torch.cat([block.w for block in blocks]).mT.contiguous(),
        h=torch.cat([block.h for block in blocks]),
        objective=torch.cat([block.objective for block in blocks]),
        history=torch.cat([block.history[:iterations] for block in blocks], dim=1),
    )


def block_size(p: int, d: int, device: torch.device) -> int:
    """How many float32 matrices of p x d are worked on at a time."""
    return max(1, _BLOCK_BYTES[device.type] // (4 * p * d))


def _require_non_negative(x: Float[Tensor, "n p d"]) -> None:
    low, high = x.aminmax() if x.numel() else (x.sum(), x.sum())
    if not (low >= 0 and high < torch.inf):  # not-a-number fails both
        raise ValueError("a non-negative factorisation needs finite, non-negative entries")


def nndsvda(x: Float[Tensor, "n p d"], rank: int) -> tuple[Float[Tensor, "n r p"], Float[Tensor, "n r d"]]:
    """Start (W^T, H) from the positive parts of the leading singular vectors, zeros filled with each matrix's mean.

    Does not depend on the signs that the eigendecomposition happens to give, which is that of the smaller Gram matrix.

    Source: Boutsidis and Gallopoulos 2008, "SVD based initialization", variant NNDSVDa.
    """
    if x.shape[1] > x.shape[2]:
        h, w = nndsvda(x.mT, rank)
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
    mean = x.mean(dim=(1, 2), keepdim=True)
    return torch.where(w < 1e-6, mean, w), torch.where(h < 1e-6, mean, h)


class _Block:
    """Factors of a block of matrices while they are being improved; W is kept transposed, [n, r, p]."""

    def __init__(self, x: Float[Tensor, "n p d"], rank: int, max_iterations: int) -> None:
        self.x = x
        self.squares = x.square().sum(dim=(1, 2))
        self.w, self.h = nndsvda(x, rank)
        self.objective = torch.full_like(self.squares, torch.inf)
        self.history = self.squares.repeat(max_iterations, 1)
        self.iterations = 0

    def run(self, tolerance: float) -> None:
        """Improve all matrices until each has converged or the iterations are used up."""
        active = torch.arange(len(self.x), device=self.x.device)
        going = torch.ones_like(active, dtype=torch.bool)
        state = _Active(self.x, self.squares, self.w.clone(), self.h.clone())
        for iteration in range(len(self.history)):
            converged = state.improve(tolerance)
            self.history[iteration:, active[going]] = state.objective[going]
            self.iterations = iteration + 1
            ended = going if self.iterations == len(self.history) else going & converged
            if ended.any():
                self._store(active[ended], state, ended)
                going = going & ~ended
            # To take the converged ones out costs a copy of the block; it pays once they are a quarter.
            if 4 * int(going.sum()) < 3 * len(active):
                active, state = active[going], state.keep(going)
                going = going[going]
                if not len(active):
                    break

    def _store(self, index: Int[Tensor, " m"], state: "_Active", chosen: Tensor) -> None:
        """Take over factors with a last plain sweep of W, so that objective and factors belong together."""
        x, w, h = state.x[chosen], state.w[chosen], state.h[chosen]
        cross, gram = h @ x.mT, h @ h.mT
        _sweep(gram, cross, w, state.floor[chosen])
        objective = state.squares[chosen] - 2 * _inner(w, cross) + _inner(w @ w.mT, gram)
        self.w[index], self.h[index], self.objective[index] = w, h, objective.clamp(min=0)


class _Active:
    """The matrices of a block that have not converged, with their extrapolated factors and step lengths."""

    def __init__(
        self, x: Float[Tensor, "n p d"], squares: Tensor, w: Float[Tensor, "n r p"], h: Float[Tensor, "n r d"]
    ) -> None:
        self.x, self.squares, self.w, self.h = x, squares, w, h
        self.w_ahead, self.h_ahead = w.clone(), h.clone()
        self.floor = (_FLOOR * squares.sqrt()).clamp(min=_TINY)[:, None, None]
        self.beta = torch.full_like(squares, _BETA)
        self.beta_limit = torch.ones_like(squares)
        self.objective = squares.clone()

    def improve(self, tolerance: float) -> Tensor:
        """One iteration; gives which matrices have converged. A matrix whose objective would rise goes back a step."""
        ahead = 1 + self.beta[:, None, None]
        h = self.h_ahead  # in place: a step back starts from self.h
        _sweep(self.w_ahead @ self.w_ahead.mT, self.w_ahead @ self.x, h, self.floor)
        h_ahead = torch.lerp(self.h, h, ahead)
        cross, gram = h_ahead @ self.x.mT, h_ahead @ h_ahead.mT
        w = self.w_ahead
        _sweep(gram, cross, w, self.floor)
        objective = self.squares - 2 * _inner(w, cross) + _inner(w @ w.mT, gram)
        worse = objective > self.objective
        converged = ~worse & (self.objective - objective <= tolerance * objective.abs())
        w_ahead = torch.lerp(self.w, w, ahead)
        back = worse.nonzero().flatten()
        if len(back):
            for new, old in ((w, self.w), (w_ahead, self.w), (h, self.h), (h_ahead, self.h)):
                new[back] = old[back]
        self.w, self.h, self.w_ahead, self.h_ahead = w, h, w_ahead, h_ahead
        self.objective = torch.where(worse, self.objective, objective)
        self.beta_limit = torch.where(worse, self.beta, (self.beta_limit * _BETA_LIMIT_GROWTH).clamp(max=1))
        grown = torch.minimum(self.beta * _BETA_GROWTH, self.beta_limit)
        self.beta = torch.where(worse, self.beta / _BETA_DECAY, grown)
        return converged

    def keep(self, chosen: Tensor) -> "_Active":
        """Only the chosen matrices."""
        kept = object.__new__(_Active)
        for name, tensor in vars(self).items():
            setattr(kept, name, tensor[chosen])
        return kept


def _sweep(
    gram: Float[Tensor, "n r r"],
    cross: Float[Tensor, "n r m"],
    factor: Float[Tensor, "n r m"],
    floor: Float[Tensor, "n 1 1"],
) -> None:
    """Improve a factor in place, row by row, each by its exact non-negative least squares given the others.

    f_k <- max(0, f_k + (cross_k - gram_k f) / gram_kk), with the division done once for all rows. A row whose partner
    has vanished (its square is below `floor`) hardly moves instead of running away.
    """
    scale = torch.maximum(gram.diagonal(dim1=1, dim2=2)[:, :, None], floor).reciprocal()
    target = cross * scale
    others = torch.eye(gram.shape[1], device=gram.device) - gram * scale
    for _ in range(_SWEEPS):
        for k in range(factor.shape[1]):
            row = slice(k, k + 1)
            torch.clamp(torch.baddbmm(target[:, row], others[:, row], factor), min=0, out=factor[:, row])


def _unit(vectors: tuple[Tensor, Tensor], norms: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return vectors[0] / norms[0].clamp(min=_TINY), vectors[1] / norms[1].clamp(min=_TINY)


def _inner(a: Float[Tensor, "n i j"], b: Float[Tensor, "n i j"]) -> Float[Tensor, " n"]:
    return (a * b).sum(dim=(1, 2))

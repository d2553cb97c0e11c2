"""Noise for several generators: each vector exactly N(0, I_n), all of one sample pairwise orthogonal.

``haar`` draws a random orthonormal frame per sample. ``hurwitz`` rotates one target vector t by fixed
orthogonal matrices U_i: where every U_i^T U_j is skew-symmetric, <U_i t, U_j t> = 0 for *every* t. There
are at most rho(n) such matrices in R^n (Radon 1922, Hurwitz 1923), and signed permutations reach that
number (Geramita and Seberry, Orthogonal Designs, 1979, chapter 1).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from freqgan.model.noise_settings import NoiseMode, check_noise, twos
from freqgan.seeds import generator_for


def draw_noise(mode: NoiseMode, seed: int, step: int, batch: int, count: int, dimensions: int) -> Tensor:
    """Return noises (count, batch, n), float32 on the CPU: [i, b] goes to generator i for sample b of the step.

    A pure function of its arguments. Row b belongs to sample b of the *whole* batch of the step: a replica
    that trains on part of the batch draws all of it and takes the rows of its samples, for a draw of
    a smaller batch holds other values. ``split`` leaves zeros outside each generator's own coordinates;
    in the other modes every vector is N(0, I_n).

    Raises:
        InputError: see :func:`check_noise`.

    """
    check_noise(mode, count, dimensions)
    # float64 draws do not depend on the vector instructions of the machine, and the frame needs them.
    shape = (batch, count, dimensions) if mode in ("haar", "independent") else (batch, dimensions)
    gaussian = torch.randn(shape, generator=generator_for(seed, "noise", step), dtype=torch.float64)
    if mode == "hurwitz":
        return orthogonal_noises(gaussian.float(), count)
    if mode == "split":
        return (gaussian * split_mask(dimensions, count)[:, None]).float()
    noises = _orthogonalise(gaussian) if mode == "haar" else gaussian
    return noises.float().movedim(1, 0).contiguous()


def orthogonal_noises(target: Tensor, count: int) -> Tensor:
    """Return the ``hurwitz`` noises (count, B, n) of target vectors (B, n), on their device.

    The first is the target itself.

    Signed permutations: orthogonal to each other for any target, whatever its distribution, with its norm,
    and N(0, I_n) if it is. Differentiable.

    Raises:
        InputError: count > rho(n), see :func:`check_noise`.

    """
    check_noise("hurwitz", count, target.shape[1])
    permutations, signs = _hurwitz_family(target.shape[1], count)
    permuted = target[:, permutations.to(target.device)].movedim(1, 0).contiguous()
    return permuted * signs.to(target)[:, None]


def _orthogonalise(gaussian: Tensor) -> Tensor:
    """Return rows a_i (B, m, n) to z_i = ||a_i|| q_i, with q_i the Gram-Schmidt basis of the rows of each sample.

    q_i is uniform on the sphere and independent of ||a_i||, which is chi with n degrees of freedom, so z_i
    is N(0, I_n). The diagonal of R would be wrong: |R_ii| is chi with n - i + 1 degrees.
    """
    norms: Tensor = torch.linalg.vector_norm(gaussian, dim=2, keepdim=True)
    return norms * _orthonormal_rows(gaussian)


def _orthonormal_rows(rows: Tensor) -> Tensor:
    """Gram-Schmidt basis of the rows (B, m, n) by Cholesky: A A^T = L L^T, Q = L^-1 A; R = L^T has positive diagonal.

    Twice, because the error of one pass grows with the square of the condition of A, which is large
    when m = n. Rows too close to dependent for Cholesky go to Householder's QR.
    """
    basis = rows
    for _ in range(2):
        factor, failed = torch.linalg.cholesky_ex(basis @ basis.mT)
        if bool(failed.any()):
            return _householder_rows(rows)
        basis = torch.linalg.solve_triangular(factor, basis, upper=False)
    return basis


def _householder_rows(rows: Tensor) -> Tensor:
    """Return the same basis by LAPACK; its signs follow the data, and uncorrected they bias the distribution."""
    basis, triangle = torch.linalg.qr(rows.mT)
    signs = torch.where(triangle.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0).to(rows)
    corrected: Tensor = basis * signs[:, None]
    return corrected.mT


def split_mask(dimensions: int, count: int) -> Tensor:
    """Return (count, n), true where a coordinate is a generator's own: consecutive blocks of n // count of them.

    The remainder goes to the first ones.
    """
    size, longer = divmod(dimensions, count)
    sizes = torch.tensor([size + (block < longer) for block in range(count)])
    owner = torch.repeat_interleave(torch.arange(count), sizes)
    return owner == torch.arange(count)[:, None]


# Words over I, P = [[0,1],[1,0]], Q = diag(1,-1), R = [[0,1],[-1,0]] stand for tensor products of these. A word is
# skew-symmetric iff it has an odd number of R; two words anticommute iff they differ, both not being I, at an odd
# number of places. With the identity, a family of anticommuting skew words is a Hurwitz-Radon family.
_BASE_WORDS = (
    (),
    ("R",),
    ("RQ", "RP", "IR"),
    ("RRR", "RQI", "RPI", "QIR", "PIR", "IRQ", "IRP"),
)
_SIXTEEN_WORDS = ("RRRQ", "RRRP", "RRIR", "RQII", "RPII", "QIRI", "QIQR", "QIPR")


def _skew_words(length: int) -> list[str]:
    """Return the rho(2^length) - 1 anticommuting skew words of this length.

    From order n to 16 n: S_i x I_n and T x M_j, with S_i the eight words of order 16, M_j those of order n,
    and T the product of the S_i, which is symmetric, squares to I and anticommutes with each of them.
    """
    if length < 4:
        return list(_BASE_WORDS[length])
    product = _product_word(_SIXTEEN_WORDS)
    smaller = _skew_words(length - 4)
    return [word + "I" * (length - 4) for word in _SIXTEEN_WORDS] + [product + word for word in smaller]


def _product_word(words: tuple[str, ...]) -> str:
    """Return the product of words up to its sign, which a family does not need.

    Letters are (swaps, negates) bits, which are added.
    """
    letters = "IPQR"  # I = 00, P = 01 swaps, Q = 10 negates the second, R = 11 both
    product = [0] * len(words[0])
    for word in words:
        product = [bits ^ letters.index(letter) for bits, letter in zip(product, word, strict=True)]
    return "".join(letters[bits] for bits in product)


@lru_cache(maxsize=64)
def _hurwitz_family(dimensions: int, count: int) -> tuple[Tensor, Tensor]:
    """Permutations and signs, both (count, n): (U_i x)[k] = signs[i, k] * x[permutations[i, k]]; U_0 = I."""
    length = twos(dimensions)
    words = ["I" * length, *_skew_words(length)][:count]
    pairs = [_signed_permutation(word, dimensions >> length) for word in words]
    return torch.stack([permutation for permutation, _ in pairs]), torch.stack([signs for _, signs in pairs])


def _signed_permutation(word: str, odd: int) -> tuple[Tensor, Tensor]:
    """Return (permutation, signs), each (n,), of a word tensor I_odd, n = 2^len(word) * odd.

    In binary k, a letter that swaps (P, R) flips its bit, and one that negates (Q, R) gives -1 where its bit is set.
    """
    order = torch.arange(2 ** len(word))
    permutation, signs = order, torch.ones_like(order)
    for place, letter in enumerate(reversed(word)):
        permutation = permutation ^ ((letter in "PR") << place)
        signs = signs * (1 - 2 * (letter in "QR") * (order >> place & 1))
    return (permutation[:, None] * odd + torch.arange(odd)).flatten(), signs.repeat_interleave(odd)

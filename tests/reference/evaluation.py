"""What is measured within tasks and after a run, what streams show, what reports test."""

import cmath
import itertools
import math

import torch
from torch import Tensor

# Evaluation within tasks -------------------------------------------------------------------------------------------


def continual_evaluation(rows: list[list[float]], tasks: list[int]) -> dict[str, float | list[float]]:
    """min-ACC and WC-ACC (De Lange et al. 2023), AAA (Caccia et al. 2022), and our number for the stability gap.

    rows: of each evaluation in order of time, the accuracy on every task; tasks: the one being learned at it.
    """
    k = tasks[-1] + 1
    lowest = [min(row[j] for row, task in zip(rows, tasks, strict=True) if task > j) for j in range(k - 1)]
    anytime = [sum(row[: task + 1]) / (task + 1) for row, task in zip(rows, tasks, strict=True)]
    gaps = []
    for switch in range(1, k):
        drops = []
        for j in range(switch):
            before = [row[j] for row, task in zip(rows, tasks, strict=True) if task == switch - 1][-1]
            during = [row[j] for row, task in zip(rows, tasks, strict=True) if task == switch]
            drops.append(min(before, during[-1]) - min(before, *during))
        gaps.append(sum(drops) / switch)
    min_acc = sum(lowest) / (k - 1)
    return {
        "within_min_accuracy": min_acc,
        "within_worst_case_accuracy": rows[-1][k - 1] / k + (1 - 1 / k) * min_acc,
        "within_average_anytime_accuracy": sum(anytime) / len(anytime),
        "within_stability_gap": sum(gaps) / len(gaps),
        "within_stability_gap_per_switch": gaps,
    }


# Streams ----------------------------------------------------------------------------------------------------------


def rotated_nearest(image: Tensor, angle: float) -> Tensor:
    """The image (H, W) turned counter-clockwise by `angle` degrees about its centre: each pixel is the one nearest to
    where it comes from, the right or lower of two as near; 0 from outside."""
    height, width = image.shape
    turn = cmath.rect(1, math.radians(angle))
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            here = complex(column - (width - 1) / 2, (height - 1) / 2 - row)  # y upwards
            there = here / turn
            x, y = there.real + (width - 1) / 2, (height - 1) / 2 - there.imag
            nearest_x, nearest_y = (math.floor(round(v + 0.5, 9)) for v in (x, y))
            if 0 <= nearest_x < width and 0 <= nearest_y < height:
                result[row, column] = image[nearest_y, nearest_x]
    return result


# Analysis ---------------------------------------------------------------------------------------------------------


def cosine(a: list[float], b: list[float]) -> float:
    """Σ a_i b_i / (√Σ a_i² √Σ b_i²)."""
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def top_weights(omega: list[float], share: float) -> set[int]:
    """Positions of the largest ceil(share · P) values, without those that are zero."""
    order = sorted(range(len(omega)), key=lambda i: -omega[i])
    return {i for i in order[: math.ceil(share * len(omega))] if omega[i] > 0}


def claimed_weights(omega: list[float], mass: float) -> set[int]:
    """Largest first, until they hold the share `mass` of the total."""
    chosen: set[int] = set()
    for i in sorted(range(len(omega)), key=lambda i: -omega[i]):
        if math.fsum(omega[j] for j in chosen) >= mass * math.fsum(omega):
            break
        chosen.add(i)
    return chosen


def hsic_cka(x: Tensor, y: Tensor) -> float:
    """HSIC(K, L)/√(HSIC(K, K) HSIC(L, L)), K = XXᵀ, L = YYᵀ, HSIC = tr(K H L H) (Kornblith et al. 2019, eq. 3)."""
    num = len(x)
    H = torch.eye(num, dtype=torch.float64) - 1 / num
    K, L = (torch.tensor([[float(a.double() @ b.double()) for b in f] for a in f], dtype=torch.float64) for f in (x, y))

    def hsic(A: Tensor, B: Tensor) -> float:
        return float((A @ H @ B @ H).trace())

    return hsic(K, L) / math.sqrt(hsic(K, K) * hsic(L, L))


def entropy_rank(phi: Tensor) -> float:
    """exp(−Σ p log p), p the square roots of the eigenvalues of ΦᵀΦ over their sum."""
    sigma = [math.sqrt(max(v, 0.0)) for v in torch.linalg.eigvalsh(phi.double().T @ phi.double()).tolist()]
    return math.exp(-sum(s / sum(sigma) * math.log(s / sum(sigma)) for s in sigma if s > 1e-12))


# Reports ----------------------------------------------------------------------------------------------------------


def sign_flip_p(differences: list[float]) -> float:
    """Share of all 2ⁿ choices of signs whose sum is as far from 0 as that of the differences."""
    own = abs(sum(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(differences))]  # fmt: skip
    return sum(found >= own - 1e-12 for found in sums) / len(sums)


def interquartile_mean(values: list[float]) -> float:
    """Mean of the sorted values without the ⌊n/4⌋ at either end."""
    cut = len(values) // 4
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)

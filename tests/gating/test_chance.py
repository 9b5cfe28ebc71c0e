"""Chance, exactly; and how often a gate is wrong when it is asked again and again."""

import math
import random
from collections.abc import Callable

import pytest

from rollout.gating.chance import ALPHA, at_least, at_most, mean_factor


def _exactly(hits: int, trials: int, share: float) -> float:
    return math.fsum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(hits, trials + 1))


@pytest.mark.parametrize("trials", [1, 2, 20, 50, 300])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.5, 0.99])
def test_chance_is_that_of_the_binomial(trials: int, share: float) -> None:
    for hits in range(math.floor(trials * share) + 1, trials + 1):
        exact = _exactly(hits, trials, share)
        assert at_least(hits, trials, share) == pytest.approx(exact, rel=1e-9, abs=1e-15)
        assert at_most(trials - hits, trials, 1 - share) == pytest.approx(exact, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("hits", "trials", "share", "chance"), [(0, 0, 0.1, 1), (1, 5, 0.0, 0), (0, 5, 0.0, 1), (5, 5, 1.0, 1), (2, 40, 0.05, 1)]
)
def test_chance_at_the_ends(hits: int, trials: int, share: float, chance: float) -> None:
    assert at_least(hits, trials, share) == chance


def test_chance_of_many_is_near_the_exact_one_and_quick() -> None:
    exact, approximated = (at_least(trials * 0.05 + 3.1 * math.sqrt(trials * 0.0475), trials, 0.05) for trials in (200_000, 220_000))
    assert approximated == pytest.approx(exact, rel=0.1)
    assert at_least(6e13, 1e15, 0.05) == 0


def _errs(randomness: random.Random, share: float) -> Callable[[int], bool]:
    hits = trials = 0

    def look(more: int) -> bool:
        nonlocal hits, trials
        hits += sum(randomness.random() < share for _ in range(more))
        trials += more
        return at_least(hits, trials, share) < ALPHA

    return look


def _costs(randomness: random.Random) -> Callable[[int], bool]:
    total, samples = 0.0, 0

    def look(more: int) -> bool:
        nonlocal total, samples
        total += math.fsum(randomness.lognormvariate(-(0.9**2) / 2, 0.9) for _ in range(more))
        samples += more
        return total / samples > mean_factor(samples)

    return look


@pytest.mark.parametrize("kind", ["errors", "slow", "costs"])
def test_a_worker_right_at_the_threshold_fails_about_one_gate_in_a_hundred(kind: str) -> None:
    """First at 50 samples, then at every 25 more up to 1,000: 39 looks. A healthy worker is far from the threshold."""
    randomness = random.Random(f"{kind} at the threshold")
    wrong = 0
    for _ in range(400):
        look = _costs(randomness) if kind == "costs" else _errs(randomness, 0.01 if kind == "errors" else 0.05)
        wrong += any(look(more) for more in (50, *[25] * 38))
    assert wrong <= 12

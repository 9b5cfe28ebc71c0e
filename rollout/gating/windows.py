"""
Stretches of time of one worker, one after the other: what recovers, or fades, shows in them, and is lost in one long sum.

A window that a gate is to rule on lasts until it holds the samples that the gate asks for, however long that takes: a shorter one could
never fail, and would look like health.

Source: our own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from rollout.gating.evidence import samples
from rollout.model.gate import Gate, Metric, Tally
from rollout.model.ids import GateId

# So many that fail, one after the other, show that a worker which had passed is no longer well. One may be a hiccup.
WINDOWS_TO_FAIL = 2
# Those that are complete, and the one that is being filled.
WINDOWS_KEPT = WINDOWS_TO_FAIL + 1
# What a worker does of its own accord comes in bursts longer than a window: it isn't watched in windows.
BURSTS = frozenset({Metric.WORK, Metric.BACKLOG, Metric.PUSH_FAILURES})


@dataclass(frozen=True, slots=True)
class Window:
    """
    One stretch of a worker, and the completed requests per second of its pool's other workers meanwhile.

    *controls* is the tally of those of them that still run what they ran before, None where there are none.
    """

    own: Tally
    peers_per_s: tuple[float, ...]
    controls: Tally | None = None


def extend(
    windows: tuple[Window, ...],
    own: Tally,
    peers_per_s: tuple[float, ...],
    window_s: float,
    controls: Tally | None = None,
) -> tuple[Window, ...]:
    """Add a tally to the last window, or begin another one when that is complete; keep the last few."""
    last = windows[-1] if windows else None
    if last is None or is_complete(last, window_s, None):
        return (*windows, Window(own, peers_per_s, controls))[-WINDOWS_KEPT:]
    return (*windows[:-1], _joined(last, own, peers_per_s, controls))


def extend_each(
    watched: Mapping[GateId, tuple[Window, ...]],
    gates: Sequence[Gate],
    own: Tally,
    peers_per_s: tuple[float, ...],
    window_s: float,
    controls: Tally | None,
) -> dict[GateId, tuple[Window, ...]]:
    """Extend the windows of each gate. Until one of them lacks samples they are the same, and the same is joined once."""
    extended: dict[GateId, tuple[Window, ...]] = {}
    begun: Window | None = None
    joined: list[tuple[Window, Window]] = []
    for gate in gates:
        windows = watched.get(gate.id, ())
        last = windows[-1] if windows else None
        if last is None or is_complete(last, window_s, gate):
            begun = begun or Window(own, peers_per_s, controls)
            extended[gate.id] = (*windows, begun)[-WINDOWS_KEPT:]
            continue
        window = next((after for before, after in joined if before is last), None)
        if window is None:
            window = _joined(last, own, peers_per_s, controls)
            joined.append((last, window))
        extended[gate.id] = (*windows[:-1], window)
    return extended


def _joined(last: Window, own: Tally, rates: tuple[float, ...], controls: Tally | None) -> Window:
    """Rates of one window are averaged by their time, unless a peer came or went meanwhile: then the newer ones count."""
    if rates and len(last.peers_per_s) == len(rates):
        before_s, now_s = seconds(last.own), seconds(own)
        rates = tuple((old * before_s + new * now_s) / (before_s + now_s) for old, new in zip(last.peers_per_s, rates, strict=True))
    joined = controls if last.controls is None else last.controls if controls is None else last.controls + controls
    return Window(last.own + own, rates, joined)


def complete(windows: Sequence[Window], window_s: float, gate: Gate | None = None) -> list[Window]:
    """Leave out the window that is still being filled."""
    return [window for window in windows if is_complete(window, window_s, gate)]


def is_complete(window: Window, window_s: float, gate: Gate | None) -> bool:
    """Tell whether it has lasted long enough and holds the samples that *gate*, if given, asks for."""
    return seconds(window.own) >= window_s and (gate is None or samples(gate.metric, window.own) >= gate.samples_min)


def completed(tally: Tally) -> float:
    """Count what was answered, long-polls too; what was bought says nothing about the load that users bring."""
    return max(0.0, tally.requests + tally.polls - tally.bought)


def seconds(tally: Tally) -> float:
    """Return how long it lasted."""
    return tally.until_s - tally.since_s


def completed_per_s(tally: Tally) -> float:
    """Return the rate of completed requests."""
    return completed(tally) / seconds(tally) if seconds(tally) > 0 else 0.0


def covering(stretches: Sequence[Tally]) -> Tally:
    """Add up stretches that don't touch. The sum ends with the last of them and is as long as all together, so that its rates are true."""
    summed = reduce(add, sorted(stretches, key=lambda one: one.until_s))
    return replace(summed, since_s=summed.until_s - sum(map(seconds, stretches)))


def extend_blocks(blocks: tuple[Window, ...], own: Tally, controls: Tally | None, block_s: float, blocks_max: int) -> tuple[Window, ...]:
    """
    Add a tally to the last block, or begin another one when that is *block_s* long. All are kept, up to *blocks_max*: then the older half
    goes.
    """
    last = blocks[-1] if blocks else None
    if last is not None and not is_complete(last, block_s, None):
        return (*blocks[:-1], _joined(last, own, (), controls))
    kept = blocks if len(blocks) < blocks_max else blocks[blocks_max // 2 :]
    return (*kept, Window(own, (), controls))

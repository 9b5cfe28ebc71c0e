"""
The sequential gate: it may be looked at after every measurement, and is wrong as seldom as it says.

A threshold that is looked at every few seconds fails somebody in the end. This gate adds up evidence instead: FAIL when the odds against a
good worker reach the gate's *odds*, whenever that is, and PASS when a bad one has become PASS_ODDS times less likely than a good one.
FAIL and PASS are tests of their own; between them lies PENDING, with its reason. What could not be measured is UNMEASURABLE.

latency.py     whole histograms, and what a request costs by its mean, against the worker's own past and what its pool shows meanwhile
shares.py      what fails
excuse.py      what all who have passed show at the same moment
pooled.py      all workers of a role together

How bad is bad depends on how much there is to see: *ratio_max* and *max* of the gate if given, else MARGINS, by the baseline's rate.

Source: docs/decisions/0016-sequential-gates.md.
"""

import math
from typing import NamedTuple

from rollout.gating import latency, shares, strata, threshold
from rollout.gating.curves import expected, name_of
from rollout.gating.evidence import SAMPLES, counted, measured, samples, sound
from rollout.gating.shares import NOTHING, Count
from rollout.gating.shift import Shape, shape_of
from rollout.gating.windows import Window, seconds
from rollout.model.gate import MODEL_MARGIN, Evidence, Gate, Metric, Ruling, Tally, Verdict

COMPARED_WITH = "its own baseline, less what its pool shows"
# A PASS must be so many times as likely for a good worker as for one that is just bad enough.
PASS_ODDS = 20.0
# Requests share their luck within a block.
BLOCK_S = 30.0
# A baseline with fewer is none. What a short one leaves unknown is in the ratio that counts as good (latency.Setting).
_BASELINE_MIN = 20.0
# With fewer nobody passes, whatever the gate asks for: a handful may all have been easy ones.
REQUESTS_MIN = 30.0
# Beyond so many blocks the older half is forgotten: what happened an hour ago says little about now.
BLOCKS_MAX = 120
# What somebody calls bad, and what they don't mind, must be so far apart to be told apart: what is below their limit by this is fine.
RATIO_CLEAR = 1.15
SHARE_CLEAR = 1.5
# Who was compared with its pool for so long is compared with what was seen of it.
_COMPARED_S = 120.0
# Beyond it no shift is looked at.
_ACCEPTED_MAX = 10.0


class Margin(NamedTuple):
    """From so many requests a second, this ratio and this share of failures count as bad."""

    above_per_s: float
    ratio: float
    share: float


MARGINS = (Margin(3.0, 1.25, 0.01), Margin(1.5, 1.25, 0.02), Margin(1.2, 1.5, 0.02), Margin(0.5, 1.5, 0.05), Margin(0.0, 2.0, 0.05))

HISTOGRAMS = frozenset({Metric.LATENCY_P95, Metric.CANARY_P95})
# Pushes that fail are none of these: one gateway that is away fails many, one after the other.
SHARES = frozenset({Metric.ERRORS, Metric.CANARY_FAILURES, Metric.PROXY_FAILURES})
COSTS = frozenset({Metric.REQUEST_CPU, Metric.POLL_CPU, Metric.POLL_DB, Metric.POLL_SCHEDULING})
# Of these a sequential gate knows how they vary.
METRICS = HISTOGRAMS | SHARES | COSTS


class Totals(NamedTuple):
    """
    What some blocks add up to: the *samples* of the gate's metric, *seconds*, and in how many of them there was somebody to compare with.
    Of shares besides: what was asked and failed, of the worker (*own*) and of its pool's others. Whether requests were told apart by what
    they are, its own and theirs, is None until there was one; *unknown* of all its *requests* are of kinds that there were not before.
    """

    samples: float = 0.0
    seconds: float = 0.0
    with_peers_s: float = 0.0
    own: Count = NOTHING
    others: Count = NOTHING
    own_apart: bool | None = None
    pool_apart: bool | None = None
    requests: float = 0.0
    unknown: float = 0.0

    def add(self, metric: Metric, block: Window, known: frozenset[str]) -> "Totals":
        """Add one more; *known* are the kinds of requests that there were before."""
        lasts_s = seconds(block.own)
        others = self.others
        if metric in SHARES and block.controls is not None and sound(block.controls):
            others = others.add(*counted(metric, block.controls))
        return Totals(
            self.samples + samples(metric, block.own),
            self.seconds + lasts_s,
            self.with_peers_s if block.controls is None else self.with_peers_s + lasts_s,
            self.own.add(*counted(metric, block.own)) if metric in SHARES else self.own,
            others,
            strata.are_still_apart(self.own_apart, block.own),
            self.pool_apart if block.controls is None else strata.are_still_apart(self.pool_apart, block.controls),
            self.requests + block.own.requests + block.own.polls,
            self.unknown + strata.unknown_requests(block.own, known),
        )


class Before(NamedTuple):
    """What a share is compared with: the baselines of the worker and of its pool's others, and which one is bad, or *accepted*."""

    own: Count | None
    others: Count | None
    bad: float
    accepted: float


class Odds(NamedTuple):
    """
    Logarithms of odds: *bad* against a good worker, *fine* against one that is just bad enough, which has the *limit*. *now* is the value
    lately and *usual* what it was before, both in the unit of *limit*: a ratio, or a share. *samples* are what all that rests on (less than
    0: not counted), and *levels* those of its blocks, for pooled.py. Of *bad* what was seen in *excused_s* seconds, the last of them until
    *excused_until_s*, is left out (excuse.py).
    """

    bad: float
    fine: float
    limit: float
    now: float
    usual: float
    slow_tail: bool = False
    decays: bool = False
    curve: int = 0
    samples: float = -1.0
    excused_s: float = 0.0
    excused_until_s: float = 0.0
    levels: tuple[latency.Level, ...] = ()


class How(NamedTuple):
    """Whether a pool is compared with, and whether requests are told apart by what they are, a worker's own and its pool's."""

    with_peers: bool = False
    own_apart: bool = False
    pool_apart: bool = False


class Kept(NamedTuple):
    """What was worked out before, and from which *blocks*: those that are complete are added up once."""

    blocks: tuple[Window, ...] = ()
    totals: Totals = Totals()
    heard: latency.Heard | None = None
    setting: latency.Setting | None = None
    how: How = How()
    before: Before | None = None


class Seen(NamedTuple):
    """
    One worker since it was admitted: its *blocks* (each at least BLOCK_S long but the last), its own *baseline*, that of its *pool*'s
    others (None where there are none), and which curves (indices of curves.CURVES) fitted earlier restarts of its role best.
    """

    blocks: tuple[Window, ...]
    baseline: Tally | None
    pool: Tally | None
    earlier: tuple[int, ...]
    admitted_at_s: float


def margin(per_s: float) -> Margin:
    """Say how bad is bad with so many requests a second."""
    return next(one for one in MARGINS if per_s >= one.above_per_s)


def rule(gate: Gate, seen: Seen, odds: Odds | None, *, unmeasured: str | None, now_s: float) -> Verdict:
    """
    Rule on one worker by the *odds* that `weigh` found, never raising. *unmeasured* says why the last look at it failed.

    FAIL and PASS need a fresh measurement; PASS besides requests, time, a level that is fine lately, and nothing that speaks against it.
    INCONCLUSIVE once the gate's deadline has passed.
    """
    undecided = Ruling.PENDING if now_s < seen.admitted_at_s + gate.deadline_s else Ruling.INCONCLUSIVE
    if unmeasured is not None:
        return _verdict(gate, Ruling.UNMEASURABLE, unmeasured, 0.0, odds)
    if not seen.blocks:
        ruling = Ruling.PENDING if undecided is Ruling.PENDING else Ruling.UNMEASURABLE
        return _verdict(gate, ruling, "nothing has been measured since it took its full share", 0.0, odds)
    count = -1.0 if odds is None else odds.samples
    if count < 0:
        count = sum(samples(gate.metric, block.own) for block in seen.blocks)
    if (age_s := now_s - seen.blocks[-1].own.until_s) > gate.fresh_s:
        return _verdict(gate, Ruling.UNMEASURABLE, f"its last measurement is {age_s:.0f} s old", count, odds)
    if odds is None:
        return _verdict(gate, undecided, f"neither it nor its pool had {SAMPLES[gate.metric]} enough before to compare with", count, odds)
    if fails(gate, odds):
        return _verdict(gate, Ruling.FAIL, f"{_now(gate, odds)}; the odds against a good worker are {_to_one(odds.bad)}", count, odds)
    if lacking := _lacking(gate, seen, odds, count, now_s):
        return _verdict(gate, undecided, lacking, count, odds)
    why = f"{_now(gate, odds)}; {_to_one(odds.fine)} against {_value(gate, odds.limit)}"
    return _verdict(gate, Ruling.PASS, why, count, odds)


def failed_together(gate: Gate, who: str, ratio: float, against: float) -> Verdict:
    """Say that *who* (several workers) are slower together, by *ratio* with these odds (a logarithm), which each alone doesn't show."""
    why = f"{who} together: {_THINGS[gate.metric]} {ratio:.2f} × as much as before since they passed"
    why = f"{why}; the odds against good workers are {_to_one(against)}"
    return Verdict(gate.id, Ruling.FAIL, why, Evidence(0.0, ratio, 1.0, None, COMPARED_WITH))


def _lacking(gate: Gate, seen: Seen, odds: Odds, count: float, now_s: float) -> str:
    """Say what is missing for a PASS; empty when nothing is."""
    if odds.excused_s > 0:
        return f"{_now(gate, odds)} lately; {odds.excused_s:.0f} s in which all who had passed were slower as well don't count against it"
    needed = max(REQUESTS_MIN, gate.samples_min)
    if count < needed:
        return f"it has {count:.0f} of the {needed:.0f} {SAMPLES[gate.metric]} needed"
    if odds.decays and odds.now > odds.limit:
        return f"recovering: {_now(gate, odds)} lately, and less and less"
    if odds.now > odds.limit:
        return f"{_now(gate, odds)} lately; that may still be chance ({_to_one(odds.bad)})"
    # What is added to the odds so that good ones don't fail helps nobody to pass.
    if odds.bad >= 0.5 * math.log(gate.odds / MODEL_MARGIN if gate.odds else PASS_ODDS):
        return f"{_now(gate, odds)}; too much speaks against it ({_to_one(odds.bad)})"
    if odds.fine < math.log(PASS_ODDS):
        told = f"{_to_one(odds.fine)} of {PASS_ODDS:.0f} : 1 needed"
        return f"{_now(gate, odds)}; that it is not {_value(gate, odds.limit)} has yet to show ({told})"
    if (soaked_s := now_s - seen.admitted_at_s) < gate.soak_s:
        return f"{_now(gate, odds)}; it has been watched for {soaked_s:.0f} of {gate.soak_s:g} s"
    return ""


def _now(gate: Gate, odds: Odds) -> str:
    what = threshold.NAMES[gate.metric]
    if gate.metric in SHARES:
        return f"the {what} is {odds.now * 100:.2g} % (usually {odds.usual * 100:.2g} %)"
    tail = ", with very slow ones that it had not" if odds.slow_tail and odds.bad > 0 else ""
    return f"{_THINGS[gate.metric]} {odds.now:.2f} × as much as before{tail}"


_THINGS = {
    Metric.LATENCY_P95: "requests take",
    Metric.CANARY_P95: "canary requests take",
    Metric.REQUEST_CPU: "requests cost",
    Metric.POLL_CPU: "long-polls cost",
    Metric.POLL_DB: "long-polls keep the database for",
    Metric.POLL_SCHEDULING: "long-polls wait for a database connection for",
}


def _value(gate: Gate, value: float) -> str:
    return f"{value * 100:.2g} %" if gate.metric in SHARES else f"{value:.3g} ×"


def _to_one(odds: float) -> str:
    """Write odds (a logarithm) as people do."""
    if odds < 0:
        # Where they are the other way round, how far is nobody's concern.
        return f"1 : {math.exp(-odds):.2g}" if odds > -math.log(_SAID_MAX) else f"less than 1 : {_SAID_MAX:,}"
    if odds < math.log(_SAID_MAX):
        return f"{math.exp(odds):.2g} : 1" if odds < math.log(10) else f"{math.exp(odds):,.0f} : 1"
    return f"more than {_SAID_MAX:,} : 1"


_SAID_MAX = 1_000_000


def _verdict(gate: Gate, ruling: Ruling, because: str, count: float, odds: Odds | None) -> Verdict:
    if odds is None or count <= 0:
        return Verdict(gate.id, ruling, because, Evidence(count, None, None, None))
    curve = "" if gate.metric in SHARES else name_of(odds.curve)
    return Verdict(gate.id, ruling, because, Evidence(count, odds.now, odds.usual, odds.limit, COMPARED_WITH, curve))


def fails(gate: Gate, odds: Odds | None) -> bool:
    """Tell whether the gate's odds are reached."""
    return odds is not None and gate.odds is not None and odds.bad >= math.log(gate.odds)


def weigh(gate: Gate, seen: Seen, kept: Kept | None = None, *, passed: bool = False) -> tuple[Odds | None, Kept | None]:
    """
    Weigh all that was seen of one worker; None when there is nothing to compare it with. *kept* is what came back for the blocks before.

    Takes a time that doesn't grow with the number of blocks, if *kept* is given. Of one who has *passed* only a FAIL is asked for: where
    there is none, *bad* is what it is at most, and nothing is said of *fine* and *now*.
    """
    kept = kept or Kept()
    if kept.blocks != seen.blocks[: len(kept.blocks)]:
        kept = kept._replace(blocks=(), totals=Totals(), heard=None)
    whole, known = kept.totals, strata.known_kinds(seen.baseline if seen.baseline is not None else seen.pool)
    for window in seen.blocks[len(kept.blocks) : -1]:
        whole = whole.add(gate.metric, window, known)
    totals = whole.add(gate.metric, seen.blocks[-1], known) if seen.blocks else whole
    if gate.metric in SHARES:
        before = kept.before or _before(gate, seen)
        return _weigh_shares(before, totals), Kept(seen.blocks[:-1], whole, before=before)
    return _weigh_levels(gate, seen, kept, (whole, totals), passed=passed)


def _weigh_levels(gate: Gate, seen: Seen, kept: Kept, both: tuple[Totals, Totals], *, passed: bool) -> tuple[Odds | None, Kept | None]:
    """Do it for what a request takes or costs; *both* are without and with the last block."""
    whole, totals = both
    how = _how(seen, totals)
    setting = kept.setting if kept.how == how else None
    if setting is None:
        setting = _setting(gate, seen, how)
    if setting is None:
        return None, None
    known, heard = kept.blocks, kept.heard
    if heard is None or kept.setting is not setting:
        known, heard = (), latency.silence(setting)
    for window in seen.blocks[len(known) : -1]:
        heard = latency.hear(heard, latency.listen(heard, _block(gate.metric, setting, window, seen.admitted_at_s)))
    kept = Kept(seen.blocks[:-1], whole, heard, setting, how)
    if seen.blocks:
        last = latency.listen(heard, _block(gate.metric, setting, seen.blocks[-1], seen.admitted_at_s))
        if passed and gate.odds is not None and heard.levels and last.level is not None:
            most = _mean(*latency.at_most(heard, last))
            if most < math.log(gate.odds):
                levels = (*heard.levels, last.level)
                return Odds(most, 0.0, setting.bad_ratio, 1.0, 1.0, samples=totals.samples, levels=levels), kept
        heard = latency.hear(heard, last)
    said = latency.weigh(heard)
    # A mean of two e-values is one; very slow requests are the rarer case.
    bad = _mean(said.slower, said.tail)
    odds = Odds(
        bad,
        said.fine,
        setting.bad_ratio,
        math.exp(min(said.now, 20.0)),
        1.0,
        slow_tail=said.tail > said.slower,
        decays=said.decays,
        curve=said.curve,
        samples=totals.samples,
        levels=heard.levels,
    )
    return odds, kept


_SLOWER_SHARE = 0.7


def _mean(slower: float, tail: float) -> float:
    top = max(slower, tail)
    return top + math.log(_SLOWER_SHARE * math.exp(slower - top) + (1 - _SLOWER_SHARE) * math.exp(tail - top))


def _how(seen: Seen, totals: Totals) -> How:
    # For long enough there was somebody to compare with, and what that has shown isn't forgotten when nobody is left any more; a
    # just-restarted sibling is nobody (noticing.py leaves it out).
    with_peers = seen.pool is not None and totals.with_peers_s > min(0.5 * totals.seconds, _COMPARED_S)
    apart = totals.own_apart is True and totals.unknown <= strata.UNKNOWN_MAX * totals.requests
    return How(with_peers, apart, with_peers and totals.pool_apart is True)


def _true(tally: Tally | None) -> Tally | None:
    """Leave out what can't be true: nobody is compared with that, and a NaN would pass whatever it is asked."""
    return tally if tally is not None and sound(tally) else None


def _setting(gate: Gate, seen: Seen, how: How) -> latency.Setting | None:
    own, pool = _true(seen.baseline), _true(seen.pool)
    mine = own if own is not None and measured(gate.metric, own)[1] >= _BASELINE_MIN else None
    theirs = pool if how.with_peers and pool is not None and measured(gate.metric, pool)[1] >= _BASELINE_MIN else None
    basis = mine or theirs
    if basis is None:
        return None
    per_s = measured(gate.metric, basis)[1] / max(1.0, seconds(basis))
    shape = _shape(gate.metric, basis, pool, apart=how.own_apart)
    if shape is None:
        return None
    return latency.Setting(
        shape,
        None if theirs is None else _shape(gate.metric, theirs, None, apart=how.pool_apart),
        expected(seen.earlier),
        gate.ratio_max or margin(per_s).ratio,
        1.0 if gate.ratio_max is None else max(1.0, min(gate.ratio_max / RATIO_CLEAR, _ACCEPTED_MAX)),
    )


def _shape(metric: Metric, tally: Tally, pool: Tally | None, *, apart: bool) -> latency.Basis | None:
    if metric in HISTOGRAMS:
        told_apart = strata.shape_by_strata(tally, pool) if apart and metric is Metric.LATENCY_P95 else None
        return told_apart or shape_of(_counts(metric, tally), None if pool is None else _counts(metric, pool))
    mean, count = measured(metric, tally)
    costs = strata.costs_by_strata(metric, tally) if apart and tally.strata else None
    return None if not mean or count <= 0 else latency.Mean(count, mean, costs)


def _counts(metric: Metric, tally: Tally) -> tuple[float, ...]:
    return tally.latency if metric is Metric.LATENCY_P95 else tally.canary_latency


def _block(metric: Metric, setting: latency.Setting, window: Window, admitted_at_s: float) -> latency.Block:
    middle_s = max(0.0, (window.own.since_s + window.own.until_s) / 2 - admitted_at_s)
    own, pool = _heard(metric, setting.shape, window.own), _heard(metric, setting.pool, _true(window.controls))
    return latency.Block(own, pool, seconds(window.own), middle_s)


def is_alone(gate: Gate, kept: Kept, window: Window) -> bool:
    """Tell whether nobody could be compared with in a block, by this gate's metric; *kept* is what came of it."""
    setting = kept.setting
    return setting is None or latency.compared_with(setting, _heard(gate.metric, setting.pool, _true(window.controls))) is None


def _heard(metric: Metric, basis: latency.Basis | None, tally: Tally | None) -> tuple[float, ...] | None:
    """Return a histogram, or for what is a mean its value and the number of requests behind it, as its *basis* has it."""
    if tally is None or basis is None:
        return None
    if isinstance(basis, strata.Apart):
        return strata.counts_by_strata(tally, basis)
    if isinstance(basis, Shape):
        return _counts(metric, tally)
    mean, count = measured(metric, tally)
    if mean is not None and basis.costs is not None and (excess := strata.excess(metric, tally, basis.costs)) is not None:
        # What the mix of before would have cost.
        mean = basis.mean * excess
    return None if mean is None else (mean, count)


def _before(gate: Gate, seen: Seen) -> Before:
    own, pool = _true(seen.baseline), _true(seen.pool)
    basis = own if own is not None else pool
    per_s = 0.0 if basis is None else measured(gate.metric, basis)[1] / max(1.0, seconds(basis))
    return Before(
        None if own is None else Count(*counted(gate.metric, own)),
        None if pool is None else Count(*counted(gate.metric, pool)),
        margin(per_s).share if gate.max is None else gate.max,
        0.0 if gate.max is None else gate.max / SHARE_CLEAR,
    )


def _weigh_shares(before: Before, totals: Totals) -> Odds | None:
    if before.own is None and before.others is None:
        return None
    now, others = totals.own, totals.others if totals.others.trials > 0 else None
    said = shares.weigh(now, before.own or NOTHING, others, before.others, before.bad, before.accepted)
    share = now.hits / now.trials if now.trials else 0.0
    return Odds(said.more, said.fewer, said.bad, share, said.usual, samples=totals.samples)

"""`rehearse`: many simulated rollouts of the homeserver that an inventory describes, with everything that can go wrong."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from rollout.adapters.documents.read import read_inventory, read_playbook
from rollout.deciding.state import without_figures
from rollout.interfaces.cli.opening import open_user_journal
from rollout.interfaces.cli.options import READ, inventory_option, journal_option, json_option
from rollout.interfaces.narrate import narrate
from rollout.model.errors import RolloutError
from rollout.model.event import Outcome
from rollout.model.inventory import Inventory
from rollout.model.playbook import Playbook
from rollout.rehearsal import coverage
from rollout.rehearsal.campaign import Result, Summary, remaining, run, summarise
from rollout.rehearsal.given import what_is_left_out, without_what_is_not_simulated
from rollout.rehearsal.invariants import judge
from rollout.rehearsal.perform import rehearse_one
from rollout.rehearsal.scenario import Given, draw
from rollout.simulation.fitting import Fitted, choose

# As `rollout gate`: what was asked about did not pass, and nothing was touched.
BROKEN = 3
PROGRESS_EVERY = 20
SEEDS_SHOWN_MAX = 10
REFUSALS_SHOWN_MAX = 5


@click.command()
@click.argument("playbook_path", metavar="PLAYBOOK", type=READ)
@click.option("-n", "--number", type=click.IntRange(min=1), default=200, show_default=True, help="how many rollouts to rehearse")
@click.option("--seed", type=click.IntRange(min=0), help="play this one again, and tell it line by line")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="processes to use")
@click.option("--coverage", "coverage_path", type=click.Path(dir_okay=False, path_type=Path), help="write what struck where, as JSON")
@json_option
@journal_option
@inventory_option
def rehearse(
    inventory_path: Path,
    journal_place: str | None,
    playbook_path: Path,
    number: int,
    seed: int | None,
    jobs: int,
    coverage_path: Path | None,
    *,
    as_json: bool,
) -> int:
    """
    Rehearse a rollout of this homeserver again and again, with everything that can go wrong.

    Nothing is connected to: the homeserver is a simulated one with the inventory's workers and pools. How long its boots and drains take,
    and what its requests cost, is drawn from its own finished rollouts in the journal; without any, from rollouts of the lab. Ends with 3
    when something happened that never may.
    """
    inventory = read_inventory(inventory_path)
    playbook = read_playbook(playbook_path, inventory)
    fitted = _fitted(journal_place, inventory)
    click.echo(f"figures: from {fitted.source}", err=True)
    given = Given(inventory, without_what_is_not_simulated(playbook, inventory), fitted)
    for sentence in what_is_left_out(playbook, given.playbook):
        click.echo(f"not rehearsed: {sentence}", err=True)
    if seed is not None:
        return _replay(seed, given)
    bad: list[Result] = []
    results: list[Result] = []
    for result in run(range(number), given, jobs):
        results.append(result)
        if result.broken:
            bad.append(result)
        if len(results) % PROGRESS_EVERY == 0:
            click.echo(f"{len(results)} of {number} rehearsed, {len(bad)} went wrong", err=True)
    summary = summarise(results)
    if coverage_path is not None:
        coverage_path.write_text(json.dumps(coverage.as_data(summary.struck), indent=1) + "\n", encoding="utf-8")
    refusals = _refusals(results)
    if as_json:
        click.echo(_as_json(summary, bad, refusals, inventory))
    else:
        click.echo(_as_text(summary, bad, refusals, inventory, playbook, playbook_path))
    return BROKEN if bad else 0


def _fitted(journal_place: str | None, inventory: Inventory) -> Fitted:
    try:
        return choose(open_user_journal(journal_place), inventory.homeserver)
    except RolloutError as error:
        # The lab's figures do for a rehearsal; what is wrong with the journal is said all the same.
        click.echo(f"the journal can't be read: {error.what}", err=True)
        return choose(None, inventory.homeserver)


def _replay(seed: int, given: Given) -> int:
    account = rehearse_one(draw(seed, given))
    for one in account.struck:
        strike = one.strike
        whom = f" ({one.worker})" if one.worker else ""
        click.echo(f"{one.at_s - account.began_at_s:9.2f} s  goes wrong: {strike.fault} at {strike.moment} of {strike.verb}{whom}")
    if account.plan is None:
        click.echo(account.why)
    for event in account.events:
        sentence = narrate(event, account.plan) if account.plan is not None else None
        if sentence is not None:
            click.echo(f"{event.at_s - account.began_at_s:9.2f} s  {sentence}")
    broken = judge(account)
    for name, sentence in broken:
        click.echo(f"broken: {name}: {sentence}")
    return BROKEN if broken else 0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why *count* rehearsals were refused before anything was done: in the words of the first of them, which has this *seed*."""

    why: str
    count: int
    seed: int


def _refusals(results: list[Result]) -> list[_Refusal]:
    """List them, the most frequent first. What differs by its figures alone is one."""
    found: dict[str, _Refusal] = {}
    for result in results:
        for why in _reasons(result.why) if result.outcome is Outcome.REFUSED else ():
            before = found.get(without_figures(why), _Refusal(why, 0, result.seed))
            found[without_figures(why)] = replace(before, count=before.count + 1)
    return sorted(found.values(), key=lambda one: (-one.count, one.seed))


def _reasons(told: str) -> list[str]:
    """Return what a refusal lists; all of it where it lists nothing."""
    listed = [line.strip() for line in told.splitlines()[1:] if not line.strip().startswith("try:")]
    return listed or [told]


def _as_json(summary: Summary, bad: list[Result], refusals: list[_Refusal], inventory: Inventory) -> str:
    left = remaining(inventory, summary.serving_min)
    return json.dumps(
        {
            "rehearsals": summary.rehearsals,
            "success_rate": summary.success_rate,
            "outcomes": {outcome: asdict(found) for outcome, found in summary.by_outcome.items()},
            "refused": [asdict(refusal) for refusal in refusals],
            "serving_min": {pool: {"served": served, "of": size} for pool, (served, size) in left.items()},
            "broken": [{"seed": result.seed, "invariant": name, "why": why} for result in bad for name, why in result.broken],
        },
        indent=2,
    )


def _as_text(
    summary: Summary, bad: list[Result], refusals: list[_Refusal], inventory: Inventory, playbook: Playbook, playbook_path: Path
) -> str:
    lines = [
        f"{summary.rehearsals} rollouts of {inventory.homeserver} by {playbook.name} rehearsed, most with something going wrong:",
        f"{summary.success_rate:.0%} were deployed all the same",
        "",
        f"{'ended':<24}{'count':>7}{'median':>10}{'p90':>10}{'worst':>10}",
    ]
    lines += [
        f"{outcome.replace('_', ' '):<24}{found.count:>7}{found.median_s:>8.0f} s{found.p90_s:>8.0f} s{found.worst_s:>8.0f} s"
        for outcome, found in summary.by_outcome.items()
    ]
    if refusals:
        lines.append("")
        lines += [f"refused, in {one.count}, seed {one.seed} among them: {one.why}" for one in refusals[:REFUSALS_SHOWN_MAX]]
    left = remaining(inventory, summary.serving_min)
    lines.append("")
    lines += [f"pool {pool}: {served} of {size} served at the worst moment" for pool, (served, size) in left.items()]
    lines.append("")
    if not bad:
        lines.append("nothing happened that never may")
    for name, seeds in summary.broken.items():
        shown = ", ".join(str(seed) for seed in seeds[:SEEDS_SHOWN_MAX])
        lines.append(f"broken: {name}, in {len(seeds)}: seed {shown}{' …' if len(seeds) > SEEDS_SHOWN_MAX else ''}")
    if bad:
        lines.append(f"    try: rollout rehearse {playbook_path} --seed {bad[0].seed}")
    return "\n".join(lines)

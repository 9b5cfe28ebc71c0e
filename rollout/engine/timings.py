"""What earlier rollouts of a homeserver took, read from the journal, and a plan's forecast by it."""

from dataclasses import replace

from rollout.deciding.timings import history_of, times_of
from rollout.engine import baseline
from rollout.engine.drivers import Drivers
from rollout.model.errors import RolloutError
from rollout.model.event import Outcome
from rollout.model.plan import Plan
from rollout.model.sighting import Observation
from rollout.planning.capacity import load_of
from rollout.planning.forecast import History, forecast, sessions_of, traffic_of, without_bought
from rollout.ports.journal import Journal

# The load of last month says little about tonight's, and each costs its reading time.
ROLLOUTS_MAX = 5
# Among so many those that were deployed are looked for.
_LINES_MAX = 40


def forecast_by_history(drivers: Drivers, journal: Journal, plan: Plan, seen: Observation, now_s: float) -> Plan:
    """Return *plan* with a forecast by what earlier rollouts took, and by the sessions that were *seen*; its digest stays."""
    history = read_history(drivers, journal, plan, now_s)
    return replace(plan, forecast=forecast(plan, sessions_of(seen), history, traffic_of(seen.loads)))


def read_history(drivers: Drivers, journal: Journal, plan: Plan, now_s: float) -> History:
    """
    Read what the last rollouts took that were deployed, and whether a baseline is there already.

    Never raises: a journal that can't be read is named in the history.
    """
    try:
        lines = [line for line in journal.deploys(plan.homeserver, _LINES_MAX) if line.outcome is Outcome.DEPLOYED][:ROLLOUTS_MAX]
        rollouts = []
        for line in lines:
            earlier = journal.plan(line.deploy_id)
            rollouts.append((earlier, times_of(earlier, (event for _, event in journal.events(line.deploy_id)))))
        found = baseline.find(drivers, journal, plan, now_s)
    except RolloutError as error:
        return History(unread=error.what)
    tallies = {} if found is None else found.tallies
    loads = {worker: load for worker, tally in tallies.items() if (load := load_of((tally,), baseline.HISTORY)) is not None}
    bought = {worker: tally.bought / (tally.until_s - tally.since_s) for worker, tally in tallies.items()}
    roles = {worker.id: worker.role for worker in plan.workers}
    users = {
        worker: without_bought(traffic, bought[worker], roles[worker]) for worker, traffic in traffic_of(loads).items() if worker in roles
    }
    surveyed = frozenset(tallies.keys() - set(() if found is None else found.partly))
    return replace(history_of(rollouts), surveyed=surveyed, traffic=users)

"""
What goes on in the database, and what of it forbids a rollout.

A migration takes the strongest locks there are: behind a transaction that stays open it waits, and behind it everybody else does; that was
the founding incident. A restart is less: its worker waits behind the same locks, and comes back as cold as it would at any other time.
So what refuses a migration is a warning for a restart, unless a guard of the playbook says otherwise.
"""

from collections.abc import Iterator

from rollout.model.conditions import DatabaseConditions, LockWait, Transaction
from rollout.model.ids import WorkerId
from rollout.model.listing import LISTED_MAX, listed
from rollout.model.plan import Verb, steps_of
from rollout.planning.preflight import Check, Question, Result

# Synapse's own transactions take milliseconds, its background updates about a second: one that is open for so long is something else.
LONG_S = 30.0
# Behind one that is older than this no migration begins, unless a guard on long_transaction_s allows more (or less).
LONG_MAX_S = 120.0
# Locks are waited for all the time; not for so long.
WAIT_LONG_S = 5.0

# What is said of a part that could not be read.
_NAMES = {
    "connections": "connections",
    "transactions": "long transactions",
    "waits": "lock queues",
    "builds": "index builds",
    "invalid_indexes": "invalid indexes",
    "background_updates": "background updates",
}
# What a restart depends on; the others it only finds.
_FOR_A_RESTART = frozenset({"connections"})


def of_database(question: Question) -> Iterator[Check]:
    """Look at everything that was asked of the database."""
    found = question.findings.conditions
    if found is None:
        why = "no database_driver in the inventory: pending deltas, long transactions, lock queues, connections and the rest aren't known"
        yield Check("database", Result.WARNING, why, "a database_driver, with a role that may look (pg_read_all_stats)")
        return
    yield from _unread(question, found)
    yield from _connections(question, found)
    yield from _transactions(question, found)
    yield from _waits(question, found)
    yield from _indexes(question, found)
    yield from _background_updates(question, found)


def _unread(question: Question, found: DatabaseConditions) -> Iterator[Check]:
    """Say once what could not be read for which reason."""
    for why in dict.fromkeys(found.unread.values()):
        parts = [part for part, reason in found.unread.items() if reason == why and part in _NAMES]
        needed = question.migrates or not _FOR_A_RESTART.isdisjoint(parts)
        remedy = (
            "GRANT SELECT ON background_updates to the role" if parts == ["background_updates"] else "the dsn, and what its role may see"
        )
        yield Check("database", Result.UNKNOWN if needed else Result.WARNING, f"{', '.join(_NAMES[part] for part in parts)}: {why}", remedy)


def _connections(question: Question, found: DatabaseConditions) -> Iterator[Check]:
    """
    Compare what is free with what a rollout may open at once.

    A worker that is stopped leaves connections behind for a while (a query under way ends first), and its new pool opens all of its own
    meanwhile: old and new count together.
    """
    if found.connections is None:
        return
    free = found.connections
    level = f"{free.used} of {free.max} are used and {free.reserved} reserved, so {free.free} are free"
    waves = _waves(question)
    blind = sorted({worker for wave in waves for worker in wave if worker not in question.findings.connections})
    if blind:
        why = f"{level}; how many {listed(blind)} may open isn't known"
        remedy = "database.args.cp_max in the configuration of the release; in Kubernetes, cp_max in the releases_driver"
        yield Check("connections", Result.UNKNOWN, why, remedy)
        return
    pools = question.findings.connections
    needed, most = max(((sum(pools[worker] for worker in wave), wave) for wave in [(), *waves]), key=lambda pair: pair[0])
    why = f"{level}; {' and '.join(most) or 'nobody'} may open {needed} (cp_max) before the old ones are gone"
    if needed > free.free:
        remedy = "a higher max_connections, a smaller cp_max, or end what else is connected"
        yield Check("connections", Result.NO, why, remedy)
    else:
        yield Check("connections", Result.OK, why)


def _waves(question: Question) -> list[tuple[WorkerId, ...]]:
    """List who may be out together: by the plan, or one after the other where there is none. A migration has a pool as main has."""
    if question.plan is None:
        return [(worker,) for worker in question.inventory.workers]
    waves = [wave.workers for phase in question.plan.phases for wave in phase.waves if wave.workers]
    if any(step.verb is Verb.MIGRATE for step in steps_of(question.plan.phases)):
        waves += [(worker,) for worker, entry in question.inventory.workers.items() if entry.role == "main"]
    return waves


def _transactions(question: Question, found: DatabaseConditions) -> Iterator[Check]:
    if found.transactions is None:
        return
    guarded = next((guard.max for guard in question.guards if guard.guard == "long_transaction_s"), None)
    limit_s = LONG_MAX_S if guarded is None else guarded
    shown = [one for one in found.transactions if one.age_s >= min(LONG_S, limit_s)]
    for one in shown[:LISTED_MAX]:
        refuses = one.age_s > limit_s and (question.migrates or guarded is not None)
        yield Check(
            "long transaction",
            Result.NO if refuses else Result.WARNING,
            _told(one),
            f"wait for it, or find who runs it; SELECT pg_terminate_backend({one.pid}) ends it",
        )
    if len(shown) > LISTED_MAX:
        yield Check("long transaction", Result.WARNING, f"and {len(shown) - LISTED_MAX} more")
    if not shown:
        yield Check("long transactions", Result.OK, f"none is older than {min(LONG_S, limit_s):.0f} s")


def _told(one: Transaction) -> str:
    doing = f", {one.state}" if one.state else ""
    query = f": {one.query} …" if one.query else ""
    return f"pid {one.pid} ({one.application or 'without a name'}) has one open for {one.age_s:.0f} s{doing}{query}"


def _waits(question: Question, found: DatabaseConditions) -> Iterator[Check]:
    """Say of each table who waits behind whom; what has waited for a moment is no queue."""
    if found.waits is None:
        return
    long = [one for one in found.waits if one.age_s is None or one.age_s >= WAIT_LONG_S]
    queues: dict[str, list[LockWait]] = {}
    for one in long:
        queues.setdefault(one.relation, []).append(one)
    guarded = any(guard.guard == "lock_queue" for guard in question.guards)
    for relation, waiting in list(queues.items())[:LISTED_MAX]:
        ages = [one.age_s for one in waiting if one.age_s is not None]
        age = f", the longest for {max(ages):.0f} s" if ages else ", nobody knows for how long"
        who = listed([f"pid {one.pid} ({one.mode})" for one in waiting])
        # Who waits may block others: at the head of the queue stands whoever waits for nobody.
        heads = sorted({pid for one in waiting for pid in one.blocked_by} - {one.pid for one in found.waits})
        behind = f"behind pid {', '.join(map(str, heads))}" if heads else "behind one another"
        why = f"{relation or 'something that is no table'}: {len(waiting)} wait {behind}{age}: {who}"
        ends = f"; SELECT pg_terminate_backend({heads[0]}) ends what they wait for" if heads else ""
        yield Check("lock queue", Result.NO if question.migrates or guarded else Result.WARNING, why, f"let it pass{ends}")
    if not queues:
        yield Check("lock queues", Result.OK, f"nobody has waited for {WAIT_LONG_S:.0f} s")


def _indexes(question: Question, found: DatabaseConditions) -> Iterator[Check]:
    """An index under way is lost when the process that builds it restarts, and a migration of its table waits for it."""
    for one in (found.builds or ())[:LISTED_MAX]:
        why = f"{one.index or 'an index'} on {one.relation} is being built by pid {one.pid} ({one.phase})"
        yield Check(
            "index build",
            Result.NO if question.background == "refuse" else Result.WARNING,
            why,
            "wait for its end, or `background_updates: warn` in the playbook",
        )
    if found.invalid_indexes:
        why = f"{listed(found.invalid_indexes)}: nothing uses {'it' if len(found.invalid_indexes) == 1 else 'them'}, and writes pay for it"
        yield Check("invalid indexes", Result.WARNING, why, f"REINDEX INDEX CONCURRENTLY {found.invalid_indexes[0]}")
    if found.builds == () and found.invalid_indexes == ():
        yield Check("indexes", Result.OK, "all are valid, and none is being built")


def _background_updates(question: Question, found: DatabaseConditions) -> Iterator[Check]:
    """
    A migration would add its own on top; the upgrade notes ask to wait for those of the last upgrade first. A restart only interrupts them:
    they go on where they were.
    """
    if found.background_updates is None:
        return
    if not found.background_updates:
        yield Check("background updates", Result.OK, "none is left")
        return
    why = f"{len(found.background_updates)} not ended: {listed(found.background_updates)}"
    if question.migrates and question.background == "refuse":
        yield Check("background updates", Result.NO, why, "wait for their end, or `background_updates: warn` in the playbook")
    else:
        yield Check("background updates", Result.WARNING, f"{why}; interrupted, they go on where they were")

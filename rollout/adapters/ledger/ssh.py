"""
The ledger on the proxy's host, over SSH, and the agent on all hosts.

What is done at the proxy's host is compared, stored and done there by one remote command. What is done elsewhere, because its acts name
another `host`, is compared and stored at the ledger, which lends the worker to that host (rollout.agent.lending); there the agent compares
and stores once more, acts, and the worker is given back. The dead-man is a timer of systemd's beside the ledger (rollout.agent.timer).

An act whose answer is lost is in doubt, and never sent again: its worker stays lent until somebody has made sure at its host.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import PurePosixPath
from time import time  # noqa: TID251  (what `beat` is told is by this machine's clock, and is told on as a duration)
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from rollout.adapters.agent_on_hosts import Agents
from rollout.adapters.agent_settings import AgentSettings, is_path, with_hosts
from rollout.adapters.asking_sudo import not_allowed
from rollout.adapters.faults import error_in
from rollout.adapters.ledger.claims import claim_of, mark_of
from rollout.adapters.settings import refused
from rollout.agent.acts import takes_s
from rollout.agent.book import LEAP, LEDGER_WAIT_S, Claim, Content, understood
from rollout.agent.fault import LENT
from rollout.agent.timer import disarming
from rollout.model.effect import Effect
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Verb
from rollout.model.sighting import DrainMark
from rollout.ports.acts import Act, Acts, WayBack, Work
from rollout.ports.privileges import Privileges

# An act on the same worker, of somebody else, is waited for no longer; a restart that takes longer is not for two to do.
WORKER_WAIT_S = 10.0
# For a busy host to start a process and end it.
MARGIN_S = 10.0
LOOK_TIMEOUT_S = 10.0
BEAT_TIMEOUT_S = 10.0
# What a driver does in this process, because it can't write it down, is bounded by its own timeouts.
HERE_S = 300.0
# How often the dead-man looks once it is there, and how late systemd may begin.
TICK_S = 10
ACCURACY_S = 1
# Of a homeserver's name, in a unit's name and in sudoers.
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9:_.-]")


def _is_file(reference: str) -> str:
    if not reference.startswith("file:") or not is_path(reference.removeprefix("file:")):
        raise refused("page is for the dead-man on the host, which knows no environment", "page: file:/a/whole/path on the ledger's host")
    return reference


class SshLedgerSettings(AgentSettings):
    """
    *host*: the proxy's, by its name in *hosts* or among the hosts of another driver. *path*: the ledger there; its directory, on each host,
    holds the agent, too. *readmit_after_s*: a worker of ours that has been out for so long is admitted again when nobody lives who would
    do it. *page*: `file:PATH` on that host, with the address of a webhook, which is told of that, and of whom it could not admit. *python*:
    the one that runs the agent, on each host.
    """

    readmit_after_s: Annotated[float, Field(ge=1)] = 120.0
    page: Annotated[str, AfterValidator(_is_file)] | None = None


def build(settings: Mapping[str, object], inventory: Inventory) -> "SshLedger":
    """Open the driver; nothing is connected yet."""
    checked = with_hosts(SshLedgerSettings, settings, inventory, "ledger_driver")
    # One that others are reached through, and nothing else, needs no agent.
    passed = {entry.jump for entry in checked.hosts.values()} - {checked.host} - {entry.host for entry in inventory.workers.values()}
    return SshLedger(checked, inventory.homeserver, frozenset(checked.hosts) - passed)


class SshLedger:
    """See ports.ledger. For use by several threads."""

    def __init__(self, settings: SshLedgerSettings, homeserver: str, acting: Collection[str]) -> None:
        self._settings = settings
        self._acting = acting
        self._homeserver = homeserver
        self._home = settings.host
        self._agents = Agents(settings)
        self._path = settings.path
        # What was done on a host by a lend is compared there, also where the ledger is on that host, too.
        self._path_there = str(settings.directory / f"{PurePosixPath(settings.path).stem}.acts.json")
        self._user = settings.hosts[settings.host].user

    def perform(self, effect: Effect, work: Work) -> None:
        """See ports.ledger. An act that names no host is for the machine that rollout runs on, where no agent is asked."""
        if work.acts is None or any("host" not in act for act in work.acts):
            with self.fence(effect):
                work.here()
            return
        claim = claim_of(effect, self._way_back(work.way_back))
        groups = [(host, tuple(acts)) for host, acts in groupby(work.acts, lambda act: str(act["host"]))]
        for host, _ in groups:
            if host not in self._settings.hosts:
                raise self._unknown(host)
        if all(host == self._home for host, _ in groups):
            takes = takes_s(work.acts)
            within_s = WORKER_WAIT_S + 2 * LEDGER_WAIT_S + takes + MARGIN_S
            self._at_ledger("act", claim, takes, acts=[_without_host(act) for act in work.acts], within_s=within_s)
            return
        with self._lent(claim, [host for host, _ in groups], takes_s(work.acts)) as (mine, lend):
            # One proxy that is away keeps nobody out at the others.
            self._parts(groups, mine, lend, go_on=effect.verb in {Verb.ADMIT, Verb.LET_GO})

    @contextmanager
    def fence(self, effect: Effect) -> Iterator[None]:
        """
        See ports.ledger.

        It is weaker than an act of the agent: if this process is stopped inside for longer than HERE_S, it acts when it is woken.
        """
        with self._lent(claim_of(effect), [], HERE_S):
            yield

    def guard(self, homeserver: str) -> None:
        """See ports.ledger. Also that the agent is on every host, and may do there what it has to."""
        del homeserver
        self._agents.ensure(self._acting, 2 * self._settings.connect_timeout_s)
        said = self._agents.ask(self._home, ("ready", self._path, json.dumps(self._timer())), MARGIN_S + LEDGER_WAIT_S, changes=False)
        if said["outcome"] != "done":
            raise error_in(said)

    def marks(self) -> dict[WorkerId, DrainMark]:
        """See ports.ledger."""
        return {WorkerId(worker): mark_of(mark) for worker, mark in self._read().marks.items()}

    def last_number(self) -> EffectNumber:
        """See ports.ledger."""
        return EffectNumber(max(self._read().numbers.values(), default=0))

    def take(self, token: int, owner: str = "") -> None:
        """See ports.ledger."""
        self._tell("take", str(token), owner)

    def token(self) -> int:
        """See ports.ledger."""
        return self._read().token

    def beat(self, token: int, alive_until_s: float) -> None:
        """See ports.ledger. A timer that is gone although something of ours is out is started again."""
        self._tell("beat", str(token), f"{alive_until_s - time():+f}", json.dumps(self._timer()))

    def privileges(self) -> tuple[Privileges, ...]:
        """See ports.privileges."""
        timer = self._timer()
        reached = self._settings.hosts[self._home].spelled()
        return (Privileges(self._home, reached, self._user, (tuple(timer["arm"]), tuple(disarming(timer["unit"])))),)

    def not_allowed(self, timeout_s: float) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_allowed(self.privileges(), self._agents.at, timeout_s)

    def close(self) -> None:
        """End all connections."""
        self._agents.close()

    def _parts(self, groups: Sequence[tuple[str, Acts]], claim: Claim, lend: Mapping[str, Any], *, go_on: bool) -> None:
        """Do one host's part after the other; *go_on*: also behind one that failed. Raises DriverError."""
        failed: list[DriverError] = []
        done = 0
        for host, acts in groups:
            try:
                self._act_there(host, claim, acts, begin_by_s=lend["begin_by_s"], until_s=lend["until_s"])
                done += 1
            except DriverError as error:
                failed.append(error)
                if not go_on:
                    break
        if not failed:
            return
        if not done and (len(failed) == 1 or not any(isinstance(error, OutcomeUnknownError) for error in failed)):
            raise failed[0]
        # Some of it has happened: to say that it did not would be wrong.
        where, why = ", ".join(error.where for error in failed), "\n".join(map(str, failed))
        raise OutcomeUnknownError(f"only {done} of {len(groups)} parts of it were done", where=where, why=why) from failed[0]

    @contextmanager
    def _lent(self, claim: Claim, hosts: Sequence[str], takes: float) -> Iterator[tuple[Claim, Mapping[str, Any]]]:
        """Lend the worker while the block does its part; gives the claim with its number and token, and the lend."""
        lend = self._at_ledger("lend", claim, 0.0, hosts=list(hosts), takes_s=takes)
        mine = replace(claim, number=lend["number"], token=lend["token"])
        try:
            yield mine, lend
        except Exception as error:
            # What may still happen there stays lent until that is over or settled; what this process did itself has ended.
            if not hosts or (isinstance(error, DriverError) and not isinstance(error, OutcomeUnknownError)):
                with suppress(DriverError):
                    self._give_back(mine, done=False)
            raise
        try:
            self._give_back(mine, done=True)
        except DriverError as error:
            what = "it was done, and the ledger could not be told"
            raise OutcomeUnknownError(what, where=claim.worker, why=f"{error.where}: {error.what}") from error

    def _at_ledger(self, command: str, claim: Claim, takes: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401  (parts of an order)
        """Have the agent beside the ledger do it. Whom another effect has is settled first; raises DriverError."""
        timeout_s = WORKER_WAIT_S + 3 * LEDGER_WAIT_S + takes + MARGIN_S

        def ask(claim: Claim) -> dict[str, Any]:
            order = {**asdict(claim), **more, "wait_s": WORKER_WAIT_S, "timer": self._timer()}
            return self._agents.ask(self._home, (command, self._path, json.dumps(order)), timeout_s, changes=True)

        said = ask(claim)
        if said["outcome"] == LENT:
            self._settle(claim, said)
            said = ask(replace(claim, settled=said["number"]))
        if said["outcome"] != "done":
            raise error_in(said)
        return said

    def _settle(self, claim: Claim, said: Mapping[str, Any]) -> None:
        """
        Make sure at its hosts that an effect which had the worker before has ended, or can't begin any more. Raises DriverError.

        There its number is refused from then on, and whoever acts by it now is waited for.
        """
        content = self._read()
        lend = content.lent.get(claim.worker)
        if lend is None or lend["number"] != said["number"]:
            return
        if not lend["hosts"]:
            raise error_in(said)
        token, number = (content.token, max(content.numbers.values()) + LEAP) if claim.number is None else (claim.token, claim.number)
        for host in lend["hosts"]:
            if host not in self._settings.hosts:
                raise self._unknown(host)
            self._act_there(host, Claim(claim.worker, number, token, claim.owner, what=claim.what), (), until_s=0.0)

    def _act_there(self, host: str, claim: Claim, acts: Acts, *, until_s: float, begin_by_s: float | None = None) -> None:
        there = Claim(claim.worker, claim.number, claim.token, claim.owner, what=claim.what, begin_by_s=begin_by_s)
        order = {**asdict(there), "acts": [_without_host(act) for act in acts], "wait_s": WORKER_WAIT_S, "until_s": until_s}
        timeout_s = WORKER_WAIT_S + 2 * LEDGER_WAIT_S + takes_s(acts) + MARGIN_S
        said = self._agents.ask(host, ("act", self._path_there, json.dumps(order)), timeout_s, changes=bool(acts))
        if said["outcome"] != "done":
            raise error_in(said)

    def _give_back(self, claim: Claim, *, done: bool) -> None:
        order = {**asdict(claim), "done": done, "timer": self._timer()}
        said = self._agents.ask(self._home, ("give_back", self._path, json.dumps(order)), 2 * LEDGER_WAIT_S + MARGIN_S, changes=True)
        if said["outcome"] != "done":
            raise error_in(said)

    def _tell(self, *arguments: str) -> None:
        """Raises DriverError. Nothing of it does harm if it is done twice, or later."""
        command, *others = arguments
        said = self._agents.ask(self._home, (command, self._path, *others), BEAT_TIMEOUT_S, changes=False)
        if said["outcome"] != "done":
            raise error_in(said)

    def _read(self) -> Content:
        """Read the ledger: it is always a whole one, because it is replaced in one go."""
        place = str(self._settings.directory)
        asked = (("cat", self._path), ("test", "-e", self._path), ("test", "-d", place), ("test", "-x", place))
        shown, there, directory, open_to_us = self._agents.run(self._home, asked, LOOK_TIMEOUT_S)
        where = f"{self._path} on {self._agents.where(self._home)}"
        if shown.status != 0:
            # In a directory that is closed to us nothing seems to be, and an empty ledger would say that nothing is ours.
            if there.status != 0 and (directory.status != 0 or open_to_us.status == 0):
                return Content()
            raise TransientDriverError("the ledger can't be read", where=where, why=shown.why)
        try:
            return understood(json.loads(shown.out))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            remedy = "look at the proxy which servers are drained and admit what is yours by hand, then remove the file"
            raise PermanentDriverError("the ledger is not one", where=where, why=type(error).__name__, remedy=remedy) from error

    def _way_back(self, back: WayBack | None) -> WayBack | None:
        """Write down how the dead-man admits it: nothing that it would have to do elsewhere, and by no link that lies elsewhere."""
        if back is None or any(act.get("host") != self._home for act in back.acts):
            return None
        return replace(back, acts=tuple(_without_host(act) for act in back.acts), link=None)

    def _timer(self) -> dict[str, Any]:
        """Write down the dead-man's timer; see rollout.agent.timer. Its commands are the same for ever: sudo allows them by their words."""
        settings = self._settings
        name = _NOT_PLAIN.sub("_", self._homeserver)
        unit = f"rollout-deadman-{name}.timer"
        page = () if settings.page is None else (settings.page,)
        told = ("tick", self._path, f"{settings.readmit_after_s:g}", name, unit, self._user, *page)
        begin = ["/usr/bin/systemd-run", "--quiet", "--collect", f"--unit={unit.removesuffix('.timer')}", f"--uid={self._user}"]
        times = [f"--on-active={TICK_S}", f"--on-unit-inactive={TICK_S}", f"--timer-property=AccuracySec={ACCURACY_S}s"]
        arm = [*begin, *times, "--", *self._agents.command(*told, program=self._agents.current)]
        return {"unit": unit, "arm": arm, "user": self._user, "on": self._home}

    def _unknown(self, host: str) -> PermanentDriverError:
        known = ", ".join(sorted(self._settings.hosts))
        return PermanentDriverError(f"there is no host {host!r}", where="ledger_driver", why=f"hosts are: {known}", remedy="hosts: …")


def _without_host(act: Act) -> Act:
    return {key: value for key, value in act.items() if key != "host"}

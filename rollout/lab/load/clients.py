"""
The users of a lab: long-polling syncs, sliding syncs, sends, reads, initial syncs, and requests that only main answers.

Steady and seeded: the same rates in every run. Each request is made once; what a real client would try again is counted as cut first.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from rollout.lab.load.delivery import Deliveries
from rollout.lab.load.records import INITIAL, Outcome, Record, outcome_of
from rollout.lab.receiver.receipts import Receipts
from rollout.lab.seeding import User

LONG_POLL_MS = 30_000
# Longer than a long-poll and all that a busy homeserver adds to it.
TIMEOUT_S = 75.0
# After a cut a client waits a moment, or it would ask a dead server hundreds of times a second.
AFTER_CUT_S = 0.3
# What one room can gather between two syncs of a user who is there all the time is far below this.
TIMELINE_MAX = 50
# A federation sender that was restarted catches up within seconds; what has not come by then is lost.
SETTLE_S = 20.0
# What was due longer ago is left out, or a pause of the machine would end in a flood.
LATE_MAX_S = 1.0
# A write wakes its user's syncs; what a singleton is mostly asked for is read, and much of that is cheap.
WRITES_AT_MAIN, READS_AT_MAIN = 0.05, 0.35
READ_RECEIPTS_EVERY_S = 0.2
PEER = "peer"
_API = "/_matrix/client/v3"
_SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests per second, over all users; *sliding_users* of the users long-poll by sliding sync besides."""

    sends: float = 1.5
    reads: float = 11.0
    initial_syncs: float = 2.0
    main: float = 65.0
    sliding_users: int = 28


class Clients:
    """All users of a lab, until they are stopped; *receipts* are those of the peer, which is in *rooms*."""

    def __init__(self, base_url: str, users: list[User], rooms: list[str], receipts: Receipts, rates: Rates, seed: int) -> None:
        self._base_url = base_url
        self._users = users
        self._rates = rates
        self._random = random.Random(seed)  # noqa: S311  (seeded, so that runs can be compared)
        self._numbers = itertools.count(1)
        # Transaction ids must not be those of an earlier run.
        self._run = f"{time.time():.0f}"
        members: dict[str, list[str]] = {}
        for user in users:
            for room in user.rooms:
                members.setdefault(room, []).append(user.user_id)
        self.deliveries = Deliveries(members)
        self.federated = Deliveries({room: [PEER] for room in rooms})
        self._receipts = receipts
        self.records: list[Record] = []
        self.polling = {"sync": 0, "client": 0}
        self._stopping = asyncio.Event()
        self._sending = asyncio.Event()
        # What is sent before a user's first sync has said where "now" is can't be expected to arrive there.
        self._listening = asyncio.Barrier(len(users) + 1)
        self._session: aiohttp.ClientSession | None = None

    async def run(self, settle_s: float = SETTLE_S) -> None:
        """Go on until `stop` is called, then let what was sent arrive, for at most *settle_s*."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
        ) as session:
            # aiohttp asks again by itself when a kept connection turns out to be dead, which would hide a cut.
            session._retry_connection = False  # noqa: SLF001  (there is no public switch)
            self._session = session
            tasks: list[asyncio.Task[Any]] = [asyncio.create_task(self._sync_on(user)) for user in self._users]
            tasks += [asyncio.create_task(self._slide_on(user)) for user in self._users[: self._rates.sliding_users]]
            for rate, act in (
                (self._rates.sends, self._send),
                (self._rates.reads, self._read),
                (self._rates.initial_syncs, self._sync_initially),
                (self._rates.main, self._ask_main),
            ):
                tasks.append(asyncio.create_task(self._steadily(rate, act)))
            tasks.append(asyncio.create_task(self._read_receipts()))
            listening = asyncio.create_task(self._listening.wait())
            listening.add_done_callback(lambda _: self._sending.set())
            tasks.append(listening)
            await self._stopping.wait()
            self._sending.clear()
            await self._settle(settle_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """End the load."""
        self._stopping.set()

    async def _settle(self, seconds: float) -> None:
        end_s = time.time() + seconds
        while time.time() < end_s and (self.deliveries.missing() or self.federated.missing()):  # noqa: ASYNC110  (it is nobody's event)
            await asyncio.sleep(0.2)

    async def _read_receipts(self) -> None:
        while True:
            for receipt in self._receipts.fresh():
                self.federated.seen(receipt.event, PEER)
            await asyncio.sleep(READ_RECEIPTS_EVERY_S)

    async def _steadily(self, rate: float, act: Callable[[], Awaitable[None]]) -> None:
        """Begin *rate* acts a second, whether or not earlier ones have ended; what a busy machine made late comes at once."""
        running: set[asyncio.Task[None]] = set()
        await self._sending.wait()
        clock = asyncio.get_running_loop().time
        due_s = clock()
        try:
            while self._sending.is_set():
                task = asyncio.ensure_future(act())
                running.add(task)
                task.add_done_callback(running.discard)
                due_s = max(due_s, clock() - LATE_MAX_S) + self._random.expovariate(rate)
                await asyncio.sleep(max(0.0, due_s - clock()))
            await asyncio.gather(*running, return_exceptions=True)
        finally:
            for task in running:
                task.cancel()

    async def _sync_on(self, user: User) -> None:
        """Sync for ever, as a client does. The first one only finds out where "now" is."""
        since: str | None = None
        wanted = json.dumps(
            {"room": {"timeline": {"limit": TIMELINE_MAX}, "state": {"lazy_load_members": True}}, "presence": {"types": []}}
        )
        await asyncio.sleep(self._random.uniform(0, 3))
        while True:
            parameters = {"timeout": str(LONG_POLL_MS if since else 0), "filter": wanted, "set_presence": "offline"}
            if since:
                parameters["since"] = since
            self.polling["sync"] += 1
            answer = await self._ask("GET", f"{_API}/sync", "sync", "sync", user, parameters=parameters)
            self.polling["sync"] -= 1
            if answer is None:
                await asyncio.sleep(AFTER_CUT_S)
                continue
            if since:
                await self._take(user, answer)
            else:
                await self._listening.wait()
            since = answer["next_batch"]

    async def _take(self, user: User, answer: Mapping[str, Any]) -> None:
        for room, joined in answer.get("rooms", {}).get("join", {}).items():
            timeline = joined.get("timeline", {})
            for event in timeline.get("events", []):
                self.deliveries.seen(event["event_id"], user.user_id)
            if timeline.get("limited"):
                await self._fill_gap(user, room, timeline["prev_batch"])

    async def _fill_gap(self, user: User, room: str, before: str) -> None:
        """More has happened than a sync holds: read what lies before, as a client does."""
        parameters = {"dir": "b", "from": before, "limit": str(TIMELINE_MAX)}
        answer = await self._ask("GET", f"{_API}/rooms/{quote(room)}/messages", "messages", "client", user, parameters=parameters)
        for event in (answer or {}).get("chunk", []):
            self.deliveries.seen(event["event_id"], user.user_id)

    async def _slide_on(self, user: User) -> None:
        position: str | None = None
        body = {
            "conn_id": "load",
            "lists": {"all": {"ranges": [[0, 20]], "timeline_limit": 1, "required_state": []}},
            "extensions": {},
        }
        await asyncio.sleep(self._random.uniform(0, 3))
        while True:
            parameters = {"timeout": str(LONG_POLL_MS if position else 0)}
            if position:
                parameters["pos"] = position
            self.polling["client"] += 1
            answer = await self._ask("POST", _SLIDING, "sliding_sync", "client", user, parameters=parameters, body=body)
            self.polling["client"] -= 1
            if answer is None:
                position = None
                await asyncio.sleep(AFTER_CUT_S)
            else:
                position = answer["pos"]

    async def _send(self) -> None:
        user = self._random.choice(self._users)
        room = self._random.choice(user.rooms)
        transaction = f"load-{self._run}-{next(self._numbers)}"
        path = f"{_API}/rooms/{quote(room)}/send/m.room.message/{transaction}"
        answer = await self._ask("PUT", path, "send", "client", user, body={"msgtype": "m.text", "body": transaction})
        if answer is not None:
            for listeners in (self.deliveries, self.federated):
                listeners.sent(answer["event_id"], room, user.user_id)

    async def _read(self) -> None:
        user = self._random.choice(self._users)
        room = quote(self._random.choice(user.rooms))
        kind, path = self._random.choice(
            (
                ("messages", f"{_API}/rooms/{room}/messages?dir=b&limit=10"),
                ("members", f"{_API}/rooms/{room}/joined_members"),
                ("joined_rooms", f"{_API}/joined_rooms"),
                ("profile", f"{_API}/profile/{quote(user.user_id)}"),
                ("state", f"{_API}/rooms/{room}/state/m.room.name"),
            )
        )
        await self._ask("GET", path, kind, "client", user)

    async def _sync_initially(self) -> None:
        user = self._random.choice(self._users)
        # A filter of its own, or the answer might come from a cache and say nothing of the worker.
        wanted = json.dumps({"room": {"timeline": {"limit": 10}, "not_rooms": [f"!load{next(self._numbers)}:invalid"]}})
        parameters = {"timeout": "0", "filter": wanted, "set_presence": "offline"}
        await self._ask("GET", f"{_API}/sync", INITIAL, "sync", user, parameters=parameters)

    async def _ask_main(self) -> None:
        user, kind = self._random.choice(self._users), self._random.random()
        if kind < WRITES_AT_MAIN:
            path = f"{_API}/user/{quote(user.user_id)}/account_data/org.example.load"
            await self._ask("PUT", path, "account_data", "main", user, body={"number": next(self._numbers)})
        elif kind < WRITES_AT_MAIN + READS_AT_MAIN:
            await self._ask("GET", f"{_API}/pushers", "pushers", "main", user)
        else:
            await self._ask("GET", f"{_API}/login", "login_flows", "main", user)

    async def _ask(
        self,
        method: str,
        path: str,
        kind: str,
        pool: str,
        user: User,
        *,
        parameters: Mapping[str, str] | None = None,
        body: object = None,
    ) -> dict[str, Any] | None:
        """Make one request and keep its record; None when it has no answer that can be used."""
        if self._session is None:
            msg = "the load is not running"
            raise RuntimeError(msg)
        began_s = time.time()
        outcome, why, answer = Outcome.ENDED, "", None
        try:
            async with self._session.request(
                method,
                self._base_url + path,
                params=parameters,
                json=body,
                headers={"Authorization": f"Bearer {user.access_token}"},
                allow_redirects=False,
            ) as response:
                text = await response.read()
                outcome = outcome_of(response.status)
                if outcome is Outcome.OK:
                    answer = json.loads(text)
                else:
                    why = f"{response.status} {text[:200]!r}"
        except (aiohttp.ClientError, OSError, TimeoutError, json.JSONDecodeError) as error:
            outcome, why = Outcome.CUT, f"{type(error).__name__}: {error}"
        finally:
            # A load that is stopped leaves long-polls open: they are kept as such, not as cut.
            self.records.append(Record(began_s, time.time(), kind, pool, user.user_id, outcome, why))
        return answer

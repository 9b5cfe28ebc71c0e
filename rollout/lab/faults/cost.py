"""Requests of clients and of other servers that cost a multiple of what they did: CPU, database time, and the time that they take."""

import time
from collections.abc import Callable
from typing import Any

from synapse.http.server import JsonResource
from synapse.logging.context import current_context, make_deferred_yieldable
from twisted.internet import reactor, task

_LONG_POLLS = frozenset({"SyncRestServlet", "SlidingSyncRestServlet", "EventStreamRestServlet"})


def multiply(factor: Callable[[], float]) -> None:
    """Let every request cost *factor* times as much from now on. What a long-poll waits for news is not lengthened."""
    original = JsonResource._async_render  # noqa: SLF001  (every servlet goes through here)

    async def render(self: Any, request: Any) -> Any:  # noqa: ANN401  (as Synapse has it)
        if not request.path.startswith(b"/_matrix"):
            return await original(self, request)
        context, began_s = current_context(), time.monotonic()
        before = context.get_resource_usage()
        answer = await original(self, request)
        used = context.get_resource_usage() - before
        more = factor() - 1
        cpu_s = used.ru_utime + used.ru_stime
        _burn(cpu_s * more)
        context.add_database_transaction(used.db_txn_duration_sec * more)
        rest_s = time.monotonic() - began_s - cpu_s * (1 + more)
        polls = request.request_metrics.name in _LONG_POLLS
        await _sleep(more * max(0.0, used.db_txn_duration_sec if polls else rest_s))
        return answer

    JsonResource._async_render = render  # noqa: SLF001


def _burn(cpu_s: float) -> None:
    end_s = time.thread_time() + cpu_s
    while time.thread_time() < end_s:
        pass


async def _sleep(seconds: float) -> None:
    await make_deferred_yieldable(task.deferLater(reactor, seconds, lambda: None))

"""It starts and answers /health; every request of a client or another server waits for ever."""

from typing import Any

from synapse.http.server import JsonResource
from synapse.logging.context import make_deferred_yieldable
from twisted.internet import defer

_original = JsonResource._async_render  # noqa: SLF001  (every servlet goes through here)


async def _render(self: Any, request: Any) -> Any:  # noqa: ANN401  (as Synapse has it)
    if request.path.startswith(b"/_matrix"):
        await make_deferred_yieldable(defer.Deferred())
    return await _original(self, request)


JsonResource._async_render = _render  # noqa: SLF001

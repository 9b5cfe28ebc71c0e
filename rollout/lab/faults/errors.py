"""One answer to a client in twenty is 500."""

import random
from typing import Any

from synapse.api.errors import SynapseError
from synapse.http.server import JsonResource

_SHARE = 0.05
_RANDOM = random.Random(1)  # noqa: S311  (seeded, so that runs can be compared)
_original = JsonResource._async_render  # noqa: SLF001  (every servlet goes through here)


async def _render(self: Any, request: Any) -> Any:  # noqa: ANN401  (as Synapse has it)
    if request.path.startswith(b"/_matrix/client") and _RANDOM.random() < _SHARE:
        request.request_metrics.name = self._get_handler_for_request(request)[1]
        raise SynapseError(500, "a fault of the lab")
    return await _original(self, request)


JsonResource._async_render = _render  # noqa: SLF001

"""
What is asked and done at a proxy's place, as data: the same whether that is this machine or a host that the program is sent to.

```
{"do": "acts", "acts": [...]}                                                        see acts.py
{"do": "haproxy", "sockets": {PATH: [COMMAND, ...]}, "masters": [PATH, ...], "timeout_s": 5.0}        see proxy.questions
{"do": "nginx", "include": PATH, "nginx": [...], "pid_file": PATH, "configured": [...] | null, "hold_page": URL | null, "timeout_s": 5.0}
                                                                                     see nginx_state.see
{"do": "nginx_limits", "include": PATH, "nginx": [...], "pid_file": PATH, "timeout_s": 5.0}           see nginx_state.limits
{"do": "nginx_text", "include": PATH, "hold_page": URL | null, "timeout_s": 5.0}     see nginx_state.text
```

Sent to a host, it is run by `main`, which prints one line: JSON, packed, because a proxy's statistics are long and alike. Nothing of it
stays there.
"""

import base64
import json
import sys
import zlib
from collections.abc import Mapping
from typing import Any

from rollout.agent.fault import PERMANENT, UNKNOWN, Fault


def answer(order: Mapping[str, Any]) -> dict[str, Any]:
    """Do what is ordered, and return what came of it. Raises Fault."""
    match order["do"]:
        case "acts":
            from rollout.agent import acts  # noqa: PLC0415  (only what is needed is loaded, and was sent)

            acts.run(order["acts"])
            return {}
        case "haproxy":
            from rollout.agent import proxy  # noqa: PLC0415  (as above)

            return proxy.questions(order)
        case "nginx":
            from rollout.agent import nginx_state  # noqa: PLC0415  (as above)

            return nginx_state.see(order)
        case "nginx_limits":
            from rollout.agent import nginx_state  # noqa: PLC0415  (as above)

            return nginx_state.limits(order)
        case "nginx_text":
            from rollout.agent import nginx_state  # noqa: PLC0415  (as above)

            return nginx_state.text(order)
        case other:
            raise Fault(PERMANENT, f"nobody knows how to do {other!r}")


def main(packed: str) -> None:
    """Answer on stdout: a Fault is an answer too."""
    try:
        said = {"outcome": "done", **answer(unpacked(packed))}
    except Fault as fault:
        said = {**fault.as_data(), "outcome": fault.kind}
    except Exception as error:  # noqa: BLE001  (whoever waits gets it, and nobody sees a traceback there)
        said = {**Fault(UNKNOWN, "the program there has a bug", why=f"{type(error).__name__}: {error}").as_data(), "outcome": UNKNOWN}
    sys.stdout.write(f"\n{pack(said)}\n")


def pack(data: Mapping[str, Any]) -> str:
    """Write it so that no shell takes anything of it for its own."""
    return base64.b64encode(zlib.compress(json.dumps(data).encode())).decode()


def unpacked(text: str) -> dict[str, Any]:
    """Read it. Raises ValueError for what isn't one."""
    try:
        found = json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not isinstance(found, dict):
        raise ValueError(text[:60])  # noqa: TRY004  (it is what it says that is wrong)
    return found

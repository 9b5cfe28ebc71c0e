"""
The kubelet's own process: `python -m tests.kubernetes.kubelet KUBECONFIG NAMESPACE NAME PLACE LABELS`, with LABELS as JSON.

It ends when its standard input does, and with it, as it is the first process of a namespace, all that it has begun (node.py).
"""

import json
import os
import sys
import threading
from pathlib import Path

from tests.kubernetes.kubelet.agent import Agent
from tests.kubernetes.kubelet.api import Server
from tests.kubernetes.kubelet.network import network


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main(kubeconfig: str, namespace: str, name: str, place: str, labels: str) -> None:
    threading.Thread(target=_end_with_input, daemon=True).start()
    begin = int.from_bytes(name.encode()[-4:], "big")
    Agent(Server(Path(kubeconfig)), network(begin), name, namespace, Path(place), json.loads(labels)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])

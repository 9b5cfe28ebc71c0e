"""
Lending a worker to the host where it is acted on, when that is not the ledger's own.

A restart is done where the worker runs; whether it may still be done is known where the ledger is, with the proxy. Nothing can compare
here and act there in one go. So the worker is lent: from then on nobody acts on it here, until it is given back, until its time is over,
or until whoever wants it has gone to those hosts and made sure, under the worker's lock there and by a higher number, that what it was lent
for has ended or can't begin any more ("settled"). At the host the act has to begin within BEGIN_S, and its program ends itself when the
lend's time is over, also one that was stopped and is woken later. So the dead-man, which reaches no other host, needs only to wait.

This compares times of two hosts. Their clocks are asked before each rollout and may differ by a second (SKEW_S is for both of them).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.agent.book import Book, Claim, begun, ended

# To reach the host and wait for its lock.
BEGIN_S = 20.0
SKEW_S = 2.0


@dataclass(frozen=True, slots=True)
class Lend:
    """Under which token and number a worker was lent, until when the act has to begin, and when it has ended (seconds since the epoch)."""

    token: int
    number: int
    begin_by_s: float
    until_s: float


def lend(book: Book, claim: Claim, wait_s: float, hosts: Sequence[str], takes_s: float) -> Lend:
    """
    Compare and store, and lend the worker to *hosts* for an act that takes at most *takes_s*. Raises Fault before anything was done.

    No hosts: it is acted on by the tool's own process.
    """
    with book.of_worker(claim, wait_s), book.changing() as content:
        token, number = begun(content, claim)
        begin_by_s = time.time() + BEGIN_S
        until_s = begin_by_s + takes_s
        content.lent[claim.worker] = {
            "token": token,
            "number": number,
            "hosts": list(hosts),
            "until_s": until_s + SKEW_S,
            "what": claim.what,
        }
    return Lend(token, number, begin_by_s, until_s)


def give_back(book: Book, claim: Claim, token: int, *, done: bool) -> None:
    """The act has ended: it was *done*, or nothing came of it. Raises Fault when that can't be written down."""
    number = claim.number or 0
    with book.changing() as content:
        found = content.lent.get(claim.worker)
        if found is not None and (found["token"], found["number"]) == (token, number):
            del content.lent[claim.worker]
        if done:
            ended(content, claim, token, number)

"""Evidence bought from real workers: asked straight at their ports, they answer, and count it as they count users' requests."""

import time

from rollout.adapters.clock.system import SystemClock
from rollout.adapters.documents.read import read_inventory
from rollout.engine.survey import Surveyor
from rollout.homeservers.synapse.canaries import bought_path
from rollout.model.ids import WorkerId
from tests.end_to_end.site import Site

CLIENT1, SYNC1, MAIN = WorkerId("client1"), WorkerId("sync1"), WorkerId("main")
# Each kind of read five times, at about the rate that anybody would choose.
REQUESTS = 20
PAUSE_S = 0.1


def test_workers_count_what_is_bought_like_any_other_request(site: Site) -> None:
    inventory, drivers = read_inventory(site.lab.inventory), site.drivers
    surveyor = Surveyor(drivers, inventory, SystemClock())
    assert surveyor.why_no_canaries() == ""
    surveyor.measure([CLIENT1, SYNC1, MAIN], with_canaries=False)
    failed: list[str] = []
    first = int(time.time() * 1000)
    for nonce in range(first, first + REQUESTS):
        asked = {worker: bought_path(inventory.workers[worker].role, nonce) or "" for worker in (CLIENT1, SYNC1, MAIN)}
        for worker, answer in drivers.probe.canary(asked, 5.0).items():
            surveyor.meter.buy(worker, answer)
            failed += [f"{asked[worker]}: {answer.why}"] if not answer.ok else []
        time.sleep(PAUSE_S)
    measured = surveyor.measure([CLIENT1, SYNC1, MAIN], with_canaries=False).tallies
    assert failed == []
    assert {(tally.bought, tally.canaries, tally.canary_failures) for tally in measured.values()} == {(REQUESTS, REQUESTS, 0)}
    # Nobody else asks them anything in a lab without load, but for main, which the others call.
    assert (measured[CLIENT1].requests, sum(measured[CLIENT1].latency), measured[CLIENT1].errors) == (REQUESTS, REQUESTS, 0)
    assert (measured[SYNC1].requests, measured[SYNC1].polls) == (0, REQUESTS)
    assert measured[MAIN].requests >= REQUESTS
    # Answers from Synapse's cache of whole /sync answers would cost next to nothing.
    assert measured[SYNC1].poll_db_s > 0

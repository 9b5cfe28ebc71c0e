"""Who asks for something quick doesn't wait for what another thread asks for."""

import threading

from rollout.adapters.asking import THREADS_MAX, Asker


def test_slow_answers_keep_no_other_thread_waiting() -> None:
    asker, go_on, there = Asker({}, 1), threading.Event(), threading.Barrier(THREADS_MAX + 1)

    def slowly(_: int) -> bool:
        there.wait(10.0)
        return go_on.wait(10.0)

    slow = threading.Thread(target=asker.each, args=(range(THREADS_MAX), slowly))
    slow.start()
    there.wait(10.0)  # every thread of that one waits now
    quick: list[dict[int, int]] = []
    other = threading.Thread(target=lambda: quick.append(asker.each(range(3), lambda number: number)))
    other.start()
    other.join(5.0)
    answered = list(quick)
    go_on.set()
    slow.join()
    other.join()
    assert answered == [{0: 0, 1: 1, 2: 2}]

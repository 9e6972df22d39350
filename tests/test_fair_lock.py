"""A lock that threads get in the order in which they asked for it."""

import threading
import time

import pytest

from vmp_edge.fair_lock import FairLock


def waiting(lock):
    return len(lock._waiting)


def wait_until(condition):
    while not condition():
        time.sleep(0.001)


def test_threads_get_it_in_the_order_in_which_they_asked():
    lock, order, threads = FairLock(), [], []

    def ask(number):
        with lock:
            order.append(number)

    with lock:
        for number in range(8):
            threads.append(threading.Thread(target=ask, args=(number,)))
            threads[-1].start()
            wait_until(lambda: waiting(lock) == len(threads))
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_who_has_just_had_it_goes_behind_those_that_wait():
    lock, counts, done, together = FairLock(), [0] * 4, threading.Event(), threading.Barrier(4)

    def work(index):
        together.wait()  # or else the first may have had it some times before the last has begun
        while not done.is_set():
            with lock:
                counts[index] += 1
                time.sleep(0.002)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: max(counts) >= 20)
    done.set()
    for thread in threads:
        thread.join()
    assert max(counts) - min(counts) <= 4


def test_its_thread_may_take_it_again():
    lock, got = FairLock(), threading.Event()

    def ask():
        with lock:
            got.set()

    with lock:
        with lock:
            thread = threading.Thread(target=ask)
            thread.start()
            wait_until(lambda: waiting(lock) == 1)
        assert not got.wait(0.02)
    assert got.wait(60)
    thread.join()


def test_an_exception_gives_it_up():
    lock = FairLock()
    with pytest.raises(KeyError), lock:
        raise KeyError
    with lock:
        pass
    assert lock._owner is None


@pytest.mark.parametrize("had_its_turn", [False, True])
def test_who_is_interrupted_while_waiting_leaves_the_queue(had_its_turn):
    lock = FairLock()
    turn = threading.Lock()
    turn.acquire()
    lock._waiting.append((1, turn))
    if had_its_turn:
        lock._pass_on()
    lock._give_up(1, turn)
    assert lock._owner is None and not lock._waiting
    with lock:
        pass

import threading

import pytest

from preprocessing.read_ahead import read_ahead


def test_items_come_in_order_and_are_made_in_a_thread_before_they_are_asked_for():
    made, ahead = [], threading.Event()

    def items():
        for number in range(6):
            made.append((number, threading.current_thread() is threading.main_thread()))
            if number == 3:
                ahead.set()
            yield number

    found = read_ahead(items(), 3)
    assert next(found) == 0
    assert ahead.wait(10)  # 1 to 3 are made while nobody asks for them
    assert [*found] == [1, 2, 3, 4, 5]
    assert made == [(number, False) for number in range(6)]


def test_no_more_is_made_than_was_agreed():
    made = []
    found = read_ahead((made.append(number) or number for number in range(100)), 2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    found.close()
    assert len(made) <= 5


def test_an_error_is_raised_in_its_place():
    def items():
        yield 1
        yield 2
        raise ValueError("the third")

    found = read_ahead(items(), 8)
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(found)


def test_nothing_is_nothing():
    assert [*read_ahead(iter(()), 2)] == []

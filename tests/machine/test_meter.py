"""Measured memory: from the driver while it goes on; nothing without a card, and that is said."""

import contextlib
import os
import threading
import time
from collections.abc import Callable

from r1recipes.machine.meter import SAMPLE_S, TOTAL, Meter, Stopwatch
from tests.driver import MIB, FakeCard


def test_without_a_card_nothing_is_measured(driver):
    for enabled in (True, False):
        with Meter(enabled=enabled) as meter:
            assert meter.peak_bytes is None
    driver.says(FakeCard())
    with Meter(enabled=False) as meter:
        assert meter.peak_bytes is None


def test_the_highest_reading_counts_and_not_what_was_there_before(driver):
    driver.says(FakeCard(readings=[100, 150, 900, 300]))
    with Meter(enabled=True) as meter:
        wait_for(lambda: meter.peak_bytes == 800)
        time.sleep(5 * SAMPLE_S)
    assert (meter.before, meter.peak_bytes) == (100, 800)


def test_what_an_earlier_run_of_this_process_has_loaded_counts_as_this_ones(driver):
    driver.says(FakeCard(used_bytes=700 * MIB))
    with Meter(enabled=True, before=200 * MIB) as meter:
        assert meter.peak_bytes == 500 * MIB


def test_a_card_that_is_lost_ends_the_measurement_and_no_run(driver):
    driver.says(FakeCard()).then_says(FakeCard(readings=[None]))
    with Meter(enabled=True) as meter:
        assert meter.peak_bytes is None
    driver.says(FakeCard(readings=[100, 300, None]))
    threads = threading.active_count()
    with Meter(enabled=True) as meter:
        wait_for(lambda: threading.active_count() == threads)
    assert meter.peak_bytes == 200


def test_another_process_on_the_card_is_noticed(driver):
    processes: list[tuple[int, str | None, int | None]]
    processes = [(os.getpid(), "python", 500), (4242, "python", None)]
    for count in range(3):
        driver.says(FakeCard(readings=[100, 300], processes=processes[:count]))
        meter = Meter(enabled=True)
        with meter:
            time.sleep(20 * SAMPLE_S)
        assert meter.peak_bytes == 200 and meter.shared is (count == 2)


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(SAMPLE_S)


def test_a_run_on_a_cpu_records_that_nothing_was_predicted_or_measured(finished):
    assert finished.read()["vram"] == {"predicted_bytes": None, "measured_bytes": None}


def test_a_stopwatch_adds_parts_up_over_attempts():
    now = time.monotonic()
    watch = Stopwatch(now - 10)
    watch.rest("imports")
    with watch.part("data"):
        time.sleep(0.02)
    watch.add("data", -5)  # a clock that was set back
    watch.rest("others")
    first = watch.read()
    assert 10 <= first["imports"] < 10.2 and 0.02 <= first["data"] < 0.2 and first["others"] < 0.2
    assert 10.02 <= first[TOTAL] < 10.5
    second = Stopwatch(time.monotonic() - 1)
    second.go_on(first)
    second.add("data", 3)
    read = second.read()
    assert read["imports"] == first["imports"] and read["data"] == first["data"] + 3
    assert first[TOTAL] + 1 <= read[TOTAL] < first[TOTAL] + 1.2


def test_a_part_that_fails_is_counted():
    watch = Stopwatch()
    with contextlib.suppress(ValueError), watch.part("data"):
        time.sleep(0.02)
        raise ValueError
    assert watch.read()["data"] >= 0.02

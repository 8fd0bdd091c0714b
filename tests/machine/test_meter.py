"""Measured memory: from the driver while it goes on; nothing without a card, and that is said."""

import threading
import time
from collections.abc import Callable

from r1recipes.machine.meter import SAMPLE_S, Meter
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


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(SAMPLE_S)


def test_a_run_on_a_cpu_records_that_nothing_was_predicted_or_measured(finished):
    assert finished.read()["vram"] == {"predicted_bytes": None, "measured_bytes": None}

"""Measured memory: nothing without a card, and the record says so."""

import threading

from r1recipes.machine import gpu
from r1recipes.machine.meter import Meter


def test_without_a_card_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(gpu, "current_gpu", lambda: None)
    with Meter(enabled=True) as meter:
        assert meter.peak_bytes is None
    with Meter(enabled=False) as meter:
        assert meter.peak_bytes is None


def test_a_card_without_the_drivers_library_is_no_error(monkeypatch):
    card = gpu.Gpu(0, "card", 2**34, 2**34, 8.0, "580")
    monkeypatch.setattr(gpu, "current_gpu", lambda: card)
    monkeypatch.setattr("ctypes.CDLL", _missing)
    with Meter(enabled=True) as meter:
        assert meter.peak_bytes is None


def _missing(name: str):
    raise OSError(name)


def test_the_highest_reading_counts_and_not_what_was_there_before(monkeypatch):
    readings, drained = iter([100, 150, 900, 300]), threading.Event()

    def used() -> int:
        value = next(readings, None)
        if value is None:
            drained.set()
        return value or 0

    monkeypatch.setattr("r1recipes.machine.meter._reader", lambda: used)
    with Meter(enabled=True) as meter:
        assert drained.wait(10)
    assert meter.peak_bytes == 800


def test_a_run_on_a_cpu_records_that_nothing_was_predicted_or_measured(finished):
    assert finished.read()["vram"] == {"predicted_bytes": None, "measured_bytes": None}

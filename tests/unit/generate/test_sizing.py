"""Times and sizes from a measurement."""

from __future__ import annotations

from azureml_inference_server_http.generate.sizing import MIB, Measured, measured, sizes

MAX_REQUEST = 100 * MIB


def test_a_measurement_is_rounded_up() -> None:
    assert measured(0.02, 30 * MIB, 0) == Measured(5, 32, 0)
    assert measured(5.01, 33 * MIB, 2) == Measured(10, 64, 2)
    assert measured(61, 1500 * MIB, 0) == Measured(120, 1536, 0)
    assert measured(0, 0, 0) == Measured(5, 0, 0)


def test_measurements_that_differ_a_little_are_mostly_the_same() -> None:
    """A measurement may be a tenth more or less, and of a short start twice as long."""
    pairs = [(mib, mib * 1.02) for mib in range(30, 4000, 7)]
    differ = [pair for pair in pairs if measured(1, pair[0] * MIB, 0) != measured(2, int(pair[1] * MIB), 0)]
    assert len(differ) < len(pairs) / 8


def test_a_slow_start_gets_ten_times_its_time_and_a_fast_one_a_minute() -> None:
    assert sizes(Measured(1, 32, 0), 1, False, None, MAX_REQUEST).start_seconds == 60
    assert sizes(Measured(31, 32, 0), 1, False, None, MAX_REQUEST).start_seconds == 310
    assert sizes(None, 1, False, None, MAX_REQUEST).start_seconds == 600


def test_memory_counts_each_worker_and_the_bodies() -> None:
    one = sizes(Measured(1, 1024, 0), 1, False, None, MAX_REQUEST)
    four = sizes(Measured(1, 1024, 0), 4, False, None, MAX_REQUEST)
    assert (one.memory_request, one.memory_limit) == (1088, 64 + 1536 + 256)
    assert (four.memory_request, four.memory_limit) == (4160, 64 + 6144 + 256)
    assert four.cpus == 4


def test_threads_share_the_model() -> None:
    assert sizes(Measured(1, 1024, 0), 4, True, None, MAX_REQUEST).memory_limit == 64 + 1536 + 256


def test_a_given_limit_for_bodies_counts_and_otherwise_two_of_the_largest_fit() -> None:
    assert sizes(None, 1, False, 10 * MIB, MAX_REQUEST).buffered == 10 * MIB
    assert sizes(None, 1, False, None, MAX_REQUEST).buffered == 256 * MIB
    assert sizes(None, 1, False, None, 1024 * MIB).buffered == 2048 * MIB

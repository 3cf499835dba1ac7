"""Times as text."""

from contract import timestamps


def test_fractions_are_padded_to_nanoseconds() -> None:
    assert timestamps.normalise("2026-11-23T09:00:00Z") == "2026-11-23T09:00:00.000000000Z"
    assert timestamps.normalise("2026-11-23T09:00:00.5Z") == "2026-11-23T09:00:00.500000000Z"


def test_nanoseconds_survive_the_round_trip() -> None:
    for text in ("2026-11-23T09:00:00.123456789Z", "1969-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"):
        assert timestamps.from_nanos(timestamps.to_nanos(text)) == text


def test_after_is_one_nanosecond_and_carries_over() -> None:
    assert timestamps.after("2026-12-31T23:59:59.999999999Z") == "2027-01-01T00:00:00.000000000Z"


def test_microseconds_are_cut_and_not_rounded() -> None:
    assert timestamps.to_micros("1970-01-01T00:00:00.000001999Z") == 1
    assert timestamps.to_datetime("2026-11-23T09:00:00.123456999Z").microsecond == 123456
    assert timestamps.from_datetime(timestamps.to_datetime("2026-11-23T09:00:00.120000000Z")) == (
        "2026-11-23T09:00:00.120000000Z"
    )

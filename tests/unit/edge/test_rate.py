"""The rate per source."""

from edge.core.rate import SourceRate


def test_s01_the_table_of_sources_is_bounded() -> None:
    rate = SourceRate(1.0, sources=10)
    for number in range(100):
        assert rate.passes(str(number), 0.0)
    assert not rate.passes("99", 0.0)
    assert rate.passes("0", 0.0)  # forgotten
    assert rate.passes("99", 1.0)

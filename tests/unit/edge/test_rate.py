"""The rate per source."""

from edge.core.rate import SharedRate, SourceRate


def test_s01_the_table_of_sources_is_bounded() -> None:
    rate = SourceRate(1.0, sources=10)
    for number in range(100):
        assert rate.passes(str(number), 0.0)
    assert not rate.passes("99", 0.0)
    assert rate.passes("0", 0.0)  # forgotten
    assert rate.passes("99", 1.0)


def test_s01_sources_that_never_come_again_share_one_rate() -> None:
    rate = SharedRate(2.0, 5.0)
    assert [rate.passes("one", 0.0) for _ in range(3)] == [True, True, False]
    assert sum(rate.passes(str(number), 0.0) for number in range(100)) == 3
    assert rate.passes("another", 1.0)

"""C20: what statistics keep of a person: nothing in `stats`, and nothing in their changelog once it is over."""

from cdr.statistics.calls import MINUTE
from events.registrations import AorState, BindingsRecorded
from events.stats import Statistics
from events.topics import REGISTRATIONS
from events.wire import encode
from tests.kit.call_stories import Story, missed, talk
from tests.kit.feed import BEGIN, GRACE, Feed, failed
from tests.kit.statistics import registered

NAMES = (b"alice", b"bob", b"eve")
CLAIM = (("c", b"0"),)


class Changelog:
    """What a compacted topic has of the changes in the end."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.kept: dict[str, bytes] = {}
        self.stats: list[Statistics] = []

    def store(self, now: int) -> None:
        self.stats += self.feed.told(now)
        for key, value in self.feed.share.changes():
            if value is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = value

    def named(self) -> set[bytes]:
        """Whom it names, in keys or values."""
        return {name for name in NAMES for key, value in self.kept.items() if name in key.encode() + value}


def test_c20_a_person_leaves_the_changelog_with_the_registration_and_the_last_minute_of_the_call() -> None:
    feed = Feed()
    log = Changelog(feed)
    feed.put(REGISTRATIONS, BEGIN, CLAIM, registered("alice@example.test", ("tls", "Soft 2/1.0")))
    for number, story in enumerate((talk(now=BEGIN, call_id="1"), missed(now=BEGIN, call_id="2"))):
        for event in story.events:
            feed.call(event, event.at)
        failed(feed, BEGIN + MINUTE, f"audit-{number}")
    log.store(BEGIN + 2 * MINUTE)
    assert {b"alice", b"bob"} <= log.named()  # it is looked for where it would be

    forgotten = BindingsRecorded("2", "alice@example.test", "operator:olga", (), AorState(), forgotten=True)
    feed.put(REGISTRATIONS, BEGIN + 3 * MINUTE, CLAIM, encode(forgotten))
    later = Story(now=BEGIN + GRACE + 5 * MINUTE, call_id="3").attempted("carol", "dave").events[0]
    feed.call(later, later.at)
    log.store(later.at)

    assert log.named() == set()
    assert log.kept  # figures are
    told = b"".join(encode(each) for each in log.stats)
    assert b'"attempts":2' in told
    assert [name for name in (*NAMES, b"carol", b"dave", b"192.0.2.", b"@") if name in told] == []

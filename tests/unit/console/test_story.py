"""E21: a call told from its events alone, in words and as a ladder."""

import random
import re

import pytest

from console.phrases import LANGUAGES
from console.story import Ladder, after, duration, ladder, stories, words
from events.calls import CallTransferred
from ramal.ladder import drawn
from ramal.wording import local_time
from tests.kit.call_stories import START, Story, missed, talk


def said(story: Story) -> str:
    (told,) = stories(story.events)
    return "\n".join(words(told, local_time))


def test_e21_an_answered_call_says_who_when_which_bindings_which_branches_and_who_hung_up() -> None:
    story = Story().attempted(targets=("sip:bob@192.0.2.9", "sip:bob@192.0.2.10")).wait(9)
    story.branch("b1", source="192.0.2.9:5060").branch("b2", source="192.0.2.10:5060").wait(40).rings("b1").rings("b2")
    story.wait(2000).branch_ends(200, "b1", "OK").answered("tt", "b1").branch_ends(487, "b2", "Request Terminated")
    text = said(story.wait(90_000).ended("callee", reason="Q.850;cause=16"))

    assert "alice@example.test called sip:bob@example.test from 192.0.2.4:5060 by udp with Desk 1.0, at edge-1" in text
    assert "That is bob@example.test, of whom 2 bindings were seen: sip:bob@192.0.2.9, sip:bob@192.0.2.10." in text
    assert (
        "Branch 1 went to sip:bob@192.0.2.9 at 192.0.2.9:5060 by tls: 180 Ringing after 40 ms; 200 OK after 2.0 s."
        in text
    )
    assert "Branch 2 went to sip:bob@192.0.2.9 at 192.0.2.10:5060 by tls: 180 Ringing" in text
    assert "It was answered after 2.0 s, and the callee hung up after 1 min 30 s (Q.850;cause=16)." in text


def test_e21_of_bindings_that_no_record_names_it_says_how_many_there_were() -> None:
    story = Story().attempted(targets=("sip:bob@192.0.2.9", "sip:bob@192.0.2.10"), more_targets=3)

    assert "of whom 5 bindings were seen: sip:bob@192.0.2.9, sip:bob@192.0.2.10 and 3 more." in said(story)
    (told,) = stories(story.events)
    assert "quem se viram 5 bindings: sip:bob@192.0.2.9, sip:bob@192.0.2.10 e mais 3." in "\n".join(
        words(told, local_time, LANGUAGES["pt"])
    )


def test_e21_of_an_imported_end_nobody_is_said_to_have_hung_up() -> None:
    story = Story().attempted().branch().answered().wait(61_000).ended("")
    (told,) = stories(story.events)

    assert "ended after 1 min 1 s; who hung up is unknown." in said(story)
    arrow = ladder(told).arrows[-1]
    assert (arrow.start, arrow.text) == (arrow.end, "BYE")
    (portuguese,) = [line for line in words(told, local_time, LANGUAGES["pt"]) if "desligou" in line]
    assert "não se sabe quem desligou" in portuguese


@pytest.mark.parametrize(
    ("story", "why"),
    [
        (Story().attempted(targets=()).failed(480, "Temporarily Unavailable"), "no phone of the callee was registered"),
        (Story().attempted(callee="").failed(404, "Not Found"), "nobody of ours has this name or number"),
        (Story().attempted().failed(503, "Service Unavailable"), "something that a call needs was away"),
        (
            Story().attempted().branch().branch_ends(486).failed(486, "Busy Here", branch="b1"),
            "what branch 1 answered.",
        ),
        (
            Story().attempted().branch("b1").branch("b2").failed(486, "Busy Here", branch="b2"),
            "what branch 2 answered, the best of 2 (RFC 3261 section 16.7)",
        ),
        (Story().attempted(transport="").failed(480, ""), "480 Temporarily Unavailable: why is unknown."),
        (Story().attempted().branch().failed(499, ""), "It failed with 499: an edge answered so itself."),
        (missed(), "The caller gave up after 9.1 s: 487"),
        (Story().attempted().redirected(), "The caller was sent elsewhere: 302"),
        (Story().attempted().branch(), "It has no end yet."),
        (Story().attempted().branch().answered(), "It is answered and lasts."),
        (Story().ended(), "The beginning of this call is not known"),
    ],
)
def test_e21_the_final_code_has_its_reason(story: Story, why: str) -> None:
    assert why in said(story)


def test_e21_no_binding_is_said_in_so_many_words() -> None:
    assert "of whom no binding was seen" in said(Story().attempted(targets=()).failed(480))


LADDER = """
          caller                    edge-1                    edge-2                    1 192.0.2.9:5060
       0  |--------- INVITE ------->|                         |                         |
       9  |                         |---------------------- INVITE -------------------->|
      49  |                         |<------------------ 180 Ringing -------------------|
      49  |<--------- 180 ----------|                         |                         |
      49  |                         |<--------------------- 200 OK ---------------------|
      49  |<--------- 200 ----------|                         |                         |
    1049  |------------------------------------ BYE ----------------------------------->|
"""


def test_e21_the_ladder_has_a_lane_for_the_caller_each_edge_and_each_branch() -> None:
    story = Story().attempted().wait(9).branch("b1", source="192.0.2.9:5060").wait(40).rings()
    story.branch_ends(200, "b1", "OK").answered()
    story.edge = "edge-2"
    (told,) = stories(story.wait(1000).ended().events)

    assert drawn(ladder(told)) == LADDER.strip("\n").splitlines()


def test_e21_doubled_and_shuffled_events_tell_the_same_story() -> None:
    story = talk()
    events = story.events * 3
    random.Random(3).shuffle(events)
    (told,) = stories(events)
    assert "\n".join(words(told, local_time)) == said(story)
    assert len(told.events) == len(story.events)


def test_calls_of_one_call_id_are_told_apart() -> None:
    first, second = Story(call_id="c", cseq=1).attempted().failed(503), Story(call_id="c", cseq=2, now=START + 9)
    told = stories([*second.attempted().branch().answered().ended().events, *first.events])
    assert [each.call.cseq for each in told] == [1, 2]


def test_every_kind_of_event_has_its_arrow() -> None:
    story = talk().refreshed()
    story.events.append(
        CallTransferred(
            call_id=story.call_id, from_tag="ft", cseq=1, at=story.now, edge="e", to_tag="tt", by="caller", refer=3,
            target="sip:x",
        )
    )  # fmt: skip
    story.cancelled().failed(500, "x" * 200).redirected()
    (told,) = stories(story.events)
    assert len(drawn(ladder(told))) == len(told.events) + 2  # a title, and a CANCEL with its 487


def forked_to_five() -> Story:
    story = Story().attempted()
    for number in range(5):
        story.wait(5).branch(f"b{number}", source=f"192.0.2.{number}:5060")
    for number in range(5):
        story.wait(20).rings(f"b{number}", f"t{number}")
    story.wait(3000).branch_ends(200, "b3", "OK").answered("t3", "b3")
    for number in (0, 1, 2, 4):
        story.wait(10).branch_ends(487, f"b{number}", "Request Terminated")
    return story.wait(60_000).ended("callee", "t3")


@pytest.mark.parametrize("columns", [80, 100, 132, 200, 400])
def test_e21_a_ladder_of_a_fork_to_five_fits_the_screen(columns: int) -> None:
    (told,) = stories(forked_to_five().events)

    lines = drawn(ladder(told), columns)

    assert max(map(len, lines)) <= columns
    assert any("<" in line and "487" in line for line in lines)
    assert sum("INVITE>" in line.replace("-", "").replace(" ", "") for line in lines) == 6
    assert len(lines) == len(drawn(ladder(told)))


def test_e21_what_a_lane_has_no_room_for_is_seen_to_be_missing() -> None:
    """A port without its last digit would be another port."""
    lanes = ("caller", "edge-1", "2 127.0.0.1:55261")
    assert drawn(Ladder(lanes, ()), 60)[0].split() == ["caller", "edge-1", "2", "127.0.0.1:55…"]
    assert drawn(Ladder(lanes, ()), 66)[0].split() == ["caller", "edge-1", "2", "127.0.0.1:55261"]


def test_e21_a_transfer_is_told_in_words() -> None:
    story = talk()
    story.events.append(
        CallTransferred(
            call_id=story.call_id, from_tag="ft", cseq=1, at=START + 9000, edge="edge-1", to_tag="tt", by="callee",
            refer=7, target="sip:carol@example.test",
        )
    )  # fmt: skip

    assert "The callee asked to go on with sip:carol@example.test after 9.0 s (REFER)." in said(story)


def test_e21_both_languages_have_every_sentence_with_the_same_details() -> None:
    english, portuguese = LANGUAGES["en"], LANGUAGES["pt"]
    assert list(english) == list(portuguese)
    for key in english:
        assert set(re.findall(r"\{(\w+)\}", english[key])) == set(re.findall(r"\{(\w+)\}", portuguese[key])), key


def test_e21_a_call_is_told_in_portuguese() -> None:
    (told,) = stories(talk().events)
    text = "\n".join(words(told, str, LANGUAGES["pt"]))

    assert f"{START}: alice@example.test ligou para sip:bob@example.test de 192.0.2.4:5060 por udp" in text
    assert "Foi atendida depois de 2.0 s, e quem ligou desligou depois de 1 min 0 s." in text
    assert ladder(told, LANGUAGES["pt"]).lanes[0] == "quem ligou"


@pytest.mark.parametrize(
    "story",
    [
        Story().branch_ends(486, "b9", "Busy Here").failed(486, "Busy Here", branch="b9"),
        Story().attempted().answered("tt", "b9").ended("callee"),
        Story().attempted().rings("b9"),
    ],
    ids=["final", "answer", "provisional"],
)
def test_e21_a_branch_whose_beginning_is_lost_is_drawn_at_its_edge(story: Story) -> None:
    (told,) = stories(story.events)
    drawing = ladder(told)

    assert all(lane < len(drawing.lanes) for arrow in drawing.arrows for lane in (arrow.start, arrow.end))
    assert drawn(drawing)
    assert said(story)


def test_times_are_coarse() -> None:
    assert [duration(seconds) for seconds in (7.9, 250, 7500)] == ["7 s", "4 min 10 s", "2 h 5 min"]
    assert [after(milliseconds) for milliseconds in (0, 999, 1000, 12_345)] == ["0 ms", "999 ms", "1.0 s", "12.3 s"]


@pytest.mark.parametrize(
    ("language", "opening", "ending"),
    [
        (
            "en",
            "called sip:bob@example.test from 192.0.2.4, at kamailio.",
            "It failed with 480 Temporarily Unavailable: why is unknown.",
        ),
        (
            "pt",
            "ligou para sip:bob@example.test de 192.0.2.4, em kamailio.",
            "Falhou com 480 Temporarily Unavailable: não se sabe por quê.",
        ),
    ],
)
def test_e21_an_imported_call_tells_what_the_other_proxys_records_say_and_no_more(
    language: str, opening: str, ending: str
) -> None:
    """Of bindings, branches and reasons they say nothing, and of where it came from the address alone."""
    story = Story(edge="kamailio").attempted(targets=(), source="192.0.2.4", transport="", agent="", codecs=())
    (told,) = stories(story.failed(480).events)
    first, second, last = words(told, local_time, LANGUAGES[language])
    assert first.endswith(opening)
    assert "kamailio" in second
    assert "binding" not in second
    assert last == ending

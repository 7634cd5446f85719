from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from startgate.events import Event, Note, Reason
from startgate.hold import Hold
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY
from startgate.listeners import Deny, Listeners
from startgate.passage import Passage, denied, failed
from startgate.policy.patch import Patch
from startgate.testing import make_event
from tests.unit.fakes import FakeGroup, expire

PATIENCE = 10.0
CREATED, STARTED = make_event("created"), make_event("started")
Journal = list[tuple[str, object]]


class Journaling(Listeners):
    """Writes down what is published, in one journal with the answers."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal
        self.published: list[Event] = []
        self.woken: list[list[str]] = []
        """What the journal had whenever consumers were woken."""

    def publish(self, event: Event, *, wake: bool = True) -> None:
        self.journal.append(("publish", event.type))
        self.published.append(event)
        if wake:
            self.wake()

    def wake(self) -> None:
        self.woken.append([what for what, _ in self.journal])


class Scene:
    """A hold, its listeners, and a journal of all that happens."""

    def __init__(self) -> None:
        self.journal: Journal = []
        self.group = FakeGroup(self.journal)
        self.hold: Hold = self.group.hold()
        self.listeners = Journaling(self.journal)

    def passage(self, *drafts: Event, **options: Any) -> Passage:
        passed = lambda: self.journal.append(("passed", None))  # noqa: E731
        refusing = lambda deny: self.journal.append(("refusing", deny.message))  # noqa: E731
        return Passage(self.hold, self.listeners, drafts, passed, refusing=refusing, **options)

    def on(self, event: Event, act: Callable[[], object], *, fail_closed: bool = False) -> None:
        def callback(event: Event) -> object:
            self.journal.append(("callback", event.type))
            return act()

        self.listeners.on(event.type, callback, fail_closed=fail_closed)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_first_the_callback_then_the_event_then_the_answer(scene: Scene) -> None:
    scene.on(CREATED, lambda: None)
    assert scene.passage(CREATED).run([CREATED]) is None
    assert scene.journal == [
        ("callback", "created"),
        ("publish", "created"),
        ("answer", FAN_ALLOW),
        ("passed", None),
    ]
    (event,) = scene.listeners.published
    assert (event.held_us is not None, event.reason) == (True, None)


def test_who_consumes_events_is_woken_after_the_answer(scene: Scene) -> None:
    """Or before a callback, which may take its time."""
    scene.passage(CREATED, STARTED).run([CREATED, STARTED])
    assert scene.listeners.woken == [["publish"], ["publish", "publish", "answer", "passed"]]


def test_two_events_pass_one_after_the_other(scene: Scene) -> None:
    scene.on(CREATED, lambda: None)
    scene.on(STARTED, lambda: None)
    scene.passage(CREATED, STARTED).run([CREATED, STARTED])
    assert scene.journal == [
        ("callback", "created"),
        ("publish", "created"),
        ("callback", "started"),
        ("publish", "started"),
        ("answer", FAN_ALLOW),
        ("passed", None),
    ]


def test_the_completed_events_are_published_not_the_drafts(scene: Scene) -> None:
    passage = scene.passage(make_event("created", name="draft"))
    passage.run([make_event("created", name="complete")])
    assert [event.container.name for event in scene.listeners.published if event.container] == ["complete"]


def test_a_failing_callback_allows(scene: Scene) -> None:
    scene.on(CREATED, lambda: 1 / 0)
    assert scene.passage(CREATED).run([CREATED]) is None
    assert scene.group.answers == [FAN_ALLOW]
    assert [event.type for event in scene.listeners.published] == ["created"]


# Deny


def test_a_deny_is_answered_and_told_instead(scene: Scene) -> None:
    scene.on(CREATED, lambda: Deny("not here", "rule 7"))
    scene.on(STARTED, lambda: pytest.fail("called"))
    assert scene.passage(CREATED, STARTED).run([CREATED, STARTED]) == Deny("not here", "rule 7")
    assert scene.journal == [
        ("callback", "created"),
        ("refusing", "not here"),
        ("publish", "denied"),
        ("answer", FAN_DENY),
        ("passed", None),
    ]
    (event,) = scene.listeners.published
    assert event.reason == Reason("not here", "rule 7")
    assert event.policy == (Note("not here", "rule 7", "deny"),)
    assert (event.gate, event.container) == (CREATED.gate, CREATED.container)
    assert event.held_us is not None


def test_a_deny_of_the_second_event(scene: Scene) -> None:
    scene.on(STARTED, lambda: Deny("no"))
    scene.passage(CREATED, STARTED).run([CREATED, STARTED])
    assert [event.type for event in scene.listeners.published] == ["created", "denied"]
    assert scene.group.answers == [FAN_DENY]


def test_after_a_deny_the_deadline_changes_nothing(scene: Scene) -> None:
    scene.on(CREATED, lambda: Deny("no"))
    scene.passage(CREATED, STARTED).run([CREATED, STARTED])
    expire(scene.hold)
    assert [event.type for event in scene.listeners.published] == ["denied"]
    assert scene.group.answers == [FAN_DENY]


def ending(scene: Scene, *, able: bool = True) -> dict[str, Any]:
    def end(late: bool) -> bool:
        scene.journal.append(("end", late))
        return able

    return {"end": end}


def test_what_is_refused_is_ended_before_the_answer(scene: Scene) -> None:
    scene.on(CREATED, lambda: Deny("no"))
    assert scene.passage(CREATED, **ending(scene)).run([CREATED]) == Deny("no")
    assert scene.journal == [
        ("callback", "created"),
        ("refusing", "no"),
        ("end", False),
        ("publish", "denied"),
        ("answer", FAN_DENY),
        ("passed", None),
    ]


def test_what_denied_says() -> None:
    event = denied(CREATED, Deny("no", "rule"), 12)
    assert (event.type, event.held_us, event.reason) == ("denied", 12, Reason("no", "rule"))
    assert event.container == CREATED.container


# The deadline


def expired(event: Event) -> bool:
    return event.reason is not None and "the deadline of" in event.reason.message


def test_the_deadline_passes_in_a_callback(scene: Scene) -> None:
    scene.on(CREATED, lambda: expire(scene.hold))
    assert scene.passage(CREATED).run([CREATED]) is None
    assert scene.journal == [
        ("callback", "created"),
        ("answer", FAN_ALLOW),
        ("publish", "created"),
        ("passed", None),
    ]
    assert expired(scene.listeners.published[0])


def test_what_is_known_by_then_is_told_when_the_deadline_passes(scene: Scene) -> None:
    scene.on(CREATED, lambda: expire(scene.hold))
    scene.passage(make_event("created", name="draft")).run([make_event("created", name="complete")])
    assert [event.container.name for event in scene.listeners.published if event.container] == ["complete"]


def test_the_deadline_passes_before_anything_is_known(scene: Scene) -> None:
    passage = scene.passage(make_event("creating", name="draft"))
    expire(scene.hold)
    assert passage.run([make_event("creating", name="complete")]) is None
    (event,) = scene.listeners.published
    assert expired(event)
    assert event.container is not None
    assert event.container.name == "draft"
    assert scene.group.answers == [FAN_ALLOW]


def test_the_deadline_passes_between_two_events(scene: Scene) -> None:
    scene.on(STARTED, lambda: expire(scene.hold))
    scene.passage(CREATED, STARTED).run([CREATED, STARTED])
    assert [(event.type, expired(event)) for event in scene.listeners.published] == [
        ("created", False),
        ("started", True),
    ]


def test_all_that_is_left_is_published_when_the_deadline_passes(scene: Scene) -> None:
    scene.on(CREATED, lambda: expire(scene.hold))
    scene.passage(CREATED, STARTED).run([CREATED, STARTED])
    assert [(event.type, expired(event)) for event in scene.listeners.published] == [
        ("created", True),
        ("started", True),
    ]
    assert scene.journal.count(("passed", None)) == 1


def test_a_deny_that_comes_too_late(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def late() -> Deny:
        expire(scene.hold)
        return Deny("too late")

    scene.on(CREATED, late)
    assert scene.passage(CREATED).run([CREATED]) is None
    assert scene.group.answers == [FAN_ALLOW]
    assert [(event.type, expired(event)) for event in scene.listeners.published] == [("created", True)]
    assert "denied too late: too late" in caplog.text


def test_what_is_refused_after_the_deadline_is_ended(scene: Scene) -> None:
    """It went on: the event says how late it was."""

    def late() -> Deny:
        expire(scene.hold)
        return Deny("no", "rule")

    scene.on(CREATED, late)
    assert scene.passage(CREATED, **ending(scene)).run([CREATED]) == Deny("no", "rule")
    assert scene.group.answers == [FAN_ALLOW]
    assert ("end", True) in scene.journal
    created, told = scene.listeners.published
    assert (created.type, told.type, told.reason and told.reason.rule) == ("created", "denied", "rule")
    assert told.reason and told.reason.message.startswith("no (the deadline had passed: it was killed after ")


def test_what_can_not_be_ended_after_the_deadline_goes_on(scene: Scene) -> None:
    scene.on(CREATED, lambda: expire(scene.hold))
    scene.on(CREATED, lambda: Deny("no"))
    assert scene.passage(CREATED, **ending(scene, able=False)).run([CREATED]) is None
    assert [event.type for event in scene.listeners.published] == ["created"]


def test_what_the_deadline_refuses_is_ended(scene: Scene) -> None:
    scene.on(CREATED, lambda: expire(scene.hold), fail_closed=True)
    assert scene.passage(CREATED, **ending(scene)).run([CREATED]) is not None
    assert scene.group.answers == [FAN_DENY]
    assert ("end", False) in scene.journal


def test_how_long_it_was_held_is_told(scene: Scene) -> None:
    scene.hold.since -= 2_500_000_000
    scene.passage(CREATED)
    expire(scene.hold)
    (event,) = scene.listeners.published
    assert event.reason is not None
    assert event.reason.message.startswith("the deadline of 2.5 s passed")
    assert event.held_us is not None
    assert 2_500_000 <= event.held_us < 3_500_000


def test_closing_the_watcher_in_a_callback_publishes_all_the_same(scene: Scene) -> None:
    scene.on(CREATED, scene.hold.allow)  # as Deadlines.close() does
    scene.passage(CREATED).run([CREATED])
    assert [(event.type, expired(event)) for event in scene.listeners.published] == [("created", False)]
    assert scene.group.answers == [FAN_ALLOW]


@pytest.mark.parametrize("deny", [False, True])
def test_whoever_wins_each_event_is_published_once(deny: bool) -> None:
    for _ in range(30):
        scene, ready = Scene(), threading.Barrier(2)
        scene.on(STARTED, lambda: Deny("no") if deny else None)
        passage = scene.passage(CREATED, STARTED)

        def expiring(scene: Scene = scene, ready: threading.Barrier = ready) -> None:
            ready.wait(PATIENCE)
            expire(scene.hold)

        thread = threading.Thread(target=expiring)
        thread.start()
        ready.wait(PATIENCE)
        passage.run([CREATED, STARTED])
        thread.join(PATIENCE)
        types = [event.type for event in scene.listeners.published]
        assert types[0] == "created"
        assert types[1:] in (["started"], ["denied"])
        assert scene.group.answers == [FAN_DENY if types[1] == "denied" else FAN_ALLOW]
        assert scene.journal.count(("passed", None)) == 1


# Notes, patches, and verdicts that are owed

CREATING = make_event("creating")


def test_what_callbacks_note_is_told(scene: Scene) -> None:
    scene.on(CREATED, lambda: [Note("careful", "rule 1"), Note("seen", "rule 2", "audit")])
    scene.passage(CREATED).run([CREATED])
    (event,) = scene.listeners.published
    assert event.policy == (Note("careful", "rule 1"), Note("seen", "rule 2", "audit"))


def test_patches_are_made_once_all_callbacks_agree(scene: Scene) -> None:
    def patching(event: Event, patches: Sequence[Patch]) -> tuple[Event, Deny | None]:
        scene.journal.append(("patch", [patch.rule for patch in patches]))
        return replace(event, policy=(*event.policy, Note("done", "a", "patch"))), None

    scene.on(CREATING, lambda: [Patch(rule="a"), Note("careful")])
    scene.on(CREATING, lambda: Patch(rule="b"))
    assert scene.passage(CREATING, patching=patching).run([CREATING]) is None
    assert scene.journal[2:] == [
        ("patch", ["a", "b"]),
        ("publish", "creating"),
        ("answer", FAN_ALLOW),
        ("passed", None),
    ]
    (event,) = scene.listeners.published
    assert event.policy == (Note("careful"), Note("done", "a", "patch"))


def test_what_is_denied_is_not_patched(scene: Scene) -> None:
    scene.on(CREATING, lambda: [Patch(rule="a"), Deny("no")])
    passage = scene.passage(CREATING, patching=lambda event, patches: pytest.fail("patched"))
    assert passage.run([CREATING]) == Deny("no")


@pytest.mark.parametrize("required", [True, False])
def test_a_patch_where_none_can_be_made(scene: Scene, required: bool) -> None:
    scene.on(CREATED, lambda: Patch(rule="a", required=required))
    verdict = scene.passage(CREATED).run([CREATED])
    message = "a container can be changed when it is `creating` only"
    assert verdict == (Deny(message, "a") if required else None)
    assert scene.group.answers == [FAN_DENY if required else FAN_ALLOW]
    (event,) = scene.listeners.published
    assert event.policy == (Note(message, "a", "error"),)


def test_the_deadline_passes_while_a_required_patch_is_made(scene: Scene) -> None:
    def patching(event: Event, patches: Sequence[Patch]) -> tuple[Event, Deny | None]:
        expire(scene.hold)
        return failed(event, patches, "too late")

    scene.on(CREATING, lambda: Patch(rule="a", required=True))
    verdict = scene.passage(CREATING, patching=patching).run([CREATING])
    assert verdict is not None and "the deadline of" in verdict.message
    assert scene.group.answers == [FAN_DENY]
    assert [event.type for event in scene.listeners.published] == ["denied"]


def test_the_deadline_denies_while_a_verdict_is_owed(scene: Scene) -> None:
    scene.on(CREATED, lambda: expire(scene.hold), fail_closed=True)
    scene.on(STARTED, lambda: pytest.fail("called"))
    verdict = scene.passage(CREATED, STARTED).run([CREATED, STARTED])
    assert verdict is not None and verdict.message.endswith("passed before this was done: denied")
    assert scene.journal[1:] == [("answer", FAN_DENY), ("publish", "denied"), ("passed", None)]


def test_a_verdict_on_a_later_event_is_owed_too(scene: Scene) -> None:
    scene.on(CREATED, lambda: expire(scene.hold))
    scene.on(STARTED, lambda: None, fail_closed=True)
    assert scene.passage(CREATED, STARTED).run([CREATED, STARTED]) is not None
    assert scene.group.answers == [FAN_DENY]


def test_nothing_is_owed_once_they_have_returned(scene: Scene) -> None:
    scene.on(CREATED, lambda: None, fail_closed=True)
    scene.on(CREATED, lambda: expire(scene.hold))
    assert scene.passage(CREATED).run([CREATED]) is None
    assert scene.group.answers == [FAN_ALLOW]
    assert expired(scene.listeners.published[0])


def test_denied_before_the_passage_began(scene: Scene) -> None:
    scene.hold.fail_closed = True
    expire(scene.hold)
    scene.on(CREATED, lambda: pytest.fail("called"))
    assert scene.passage(CREATED).run([CREATED]) is not None
    assert scene.journal == [("answer", FAN_DENY), ("publish", "denied"), ("passed", None)]


# What was told before


def test_what_was_told_before_is_judged_and_not_told_again(scene: Scene) -> None:
    kept: list[Note] = []
    scene.on(CREATED, lambda: Note("look", "rule"))
    assert scene.passage(CREATED, keep=kept.extend).run([CREATED]) is None
    assert kept == [Note("look", "rule")]
    assert scene.journal == [("callback", "created"), ("answer", FAN_ALLOW), ("passed", None)]


def test_what_was_told_before_is_told_where_it_is_refused(scene: Scene) -> None:
    scene.on(CREATED, lambda: Deny("no"))
    assert scene.passage(CREATED, keep=lambda notes: None).run([CREATED]) == Deny("no")
    assert ("answer", FAN_DENY) in scene.journal
    assert [what for kind, what in scene.journal if kind == "publish"] == ["denied"]


def test_what_was_told_before_is_not_told_at_the_deadline(scene: Scene) -> None:
    passage = scene.passage(CREATED, keep=lambda notes: None)
    expire(scene.hold)
    passage.run([CREATED])
    assert [kind for kind, _ in scene.journal] == ["answer", "passed"]


def test_what_says_nothing_new_is_let_go_untold(scene: Scene) -> None:
    scene.passage(CREATED).skip()
    assert scene.journal == [("answer", FAN_ALLOW), ("passed", None)]

from __future__ import annotations

from startgate.agent.timers import Timers


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_no_timer_no_wake_up() -> None:
    assert Timers(Clock()).timeout() is None


def test_each_is_run_once_when_it_is_due() -> None:
    clock, done = Clock(), list[str]()
    timers = Timers(clock)
    timers.after(2, "late", lambda: done.append("late"))
    timers.after(1, "early", lambda: done.append("early"))
    assert timers.timeout() == 1
    timers.run()
    assert done == []
    clock.now += 1
    timers.run()
    assert done == ["early"]
    clock.now += 5
    assert timers.timeout() == 0
    timers.run()
    timers.run()
    assert done == ["early", "late"]
    assert timers.timeout() is None


def test_a_name_has_one_timer() -> None:
    clock, done = Clock(), list[int]()
    timers = Timers(clock)
    timers.after(1, "look", lambda: done.append(1))
    timers.after(5, "look", lambda: done.append(2))
    assert "look" in timers
    clock.now += 10
    timers.run()
    assert done == [2]


def test_an_action_may_drop_another_and_set_itself_again() -> None:
    clock, done = Clock(), list[str]()
    timers = Timers(clock)

    def again() -> None:
        done.append("again")
        timers.drop("other", "unknown")
        timers.after(1, "again", again)

    timers.after(1, "again", again)
    timers.after(1, "other", lambda: done.append("other"))
    clock.now += 1
    timers.run()
    assert done == ["again"]
    assert timers.timeout() == 1

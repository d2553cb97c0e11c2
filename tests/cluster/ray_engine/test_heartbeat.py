"""Silence is noticed, slowness is not taken for it."""

from __future__ import annotations

import pytest

from cluster.ray_engine.heartbeat import Heartbeat


class People:
    """Answers come, or do not, as a test says."""

    def __init__(self) -> None:
        self.now, self.questions, self.mute = 0.0, list[str](), set[str]()
        self.heartbeat = Heartbeat(self.ask, lambda name: name not in self.mute, 10.0, lambda: self.now)

    def ask(self, name: str) -> str:
        self.questions.append(name)
        return name

    def looks(self, *names: str, seconds: int) -> list[tuple[float, str]]:
        found = []
        for _ in range(seconds):
            found += [(self.now, name) for name in self.heartbeat.silent(names)]
            self.now += 1
        return found


@pytest.fixture
def people() -> People:
    return People()


def test_who_answers_is_asked_again(people: People) -> None:
    assert people.looks("a", "b", seconds=4) == []
    assert people.questions == ["a", "b"] * 4


def test_silence_is_noticed_once_its_time_is_over(people: People) -> None:
    people.looks("a", "b", seconds=5)
    people.mute = {"b"}
    assert people.looks("a", "b", seconds=15) == [(14.0, "b")]  # the last question that b got was that of second 4
    assert people.looks("b", seconds=12) == [(25.0, "b")]  # a new one of that name, asked at 15


def test_slow_answers_are_answers(people: People) -> None:
    people.looks("a", seconds=1)
    people.mute = {"a"}
    assert people.looks("a", seconds=8) == []
    people.mute = set()
    assert people.looks("a", seconds=30) == []


def test_who_was_asleep_itself_looks_again_before_it_gives_up(people: People) -> None:
    people.looks("a", seconds=1)
    people.now += 3600
    people.mute = {"a"}
    assert people.looks("a", seconds=1) == []
    people.mute = set()
    assert people.looks("a", seconds=20) == []


def test_those_who_are_gone_start_anew(people: People) -> None:
    people.looks("a", seconds=1)
    people.mute = {"a"}
    people.looks("a", seconds=6)
    people.looks(seconds=1)  # nobody is left
    assert people.looks("a", seconds=9) == []

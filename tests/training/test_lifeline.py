"""The connections by which processes notice that one of them has gone."""

import queue
import socket
import threading
import time

import pytest

from jaxvision.training.lifeline import Lifeline

LONG = 60
"""Seconds after which what should have come at once is given up."""


class Peer:
    """Another process, as process 0 sees it."""

    def __init__(self, port: int, index: int, token: str = "token") -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=LONG)
        self.lines = self.connection.makefile("r")
        self.say(f"{token} {index}")

    def say(self, line: str) -> None:
        self.connection.sendall(f"{line}\n".encode())

    def end(self) -> None:
        self.lines.close()
        self.connection.close()


@pytest.fixture
def lost() -> queue.Queue:
    """What process 0 is told."""
    return queue.Queue()


@pytest.fixture
def port(lost) -> int:
    return Lifeline(lost.put).listen("token")


def test_process_that_ends_is_named_to_all(lost, port):
    second = Peer(port, 2)
    Peer(port, 1).end()
    assert lost.get(timeout=LONG) == 1
    assert second.lines.readline() == "lost 1\n"
    second.end()


def test_process_that_was_told_says_whom(lost, port):
    Peer(port, 1).say("lost 3")
    assert lost.get(timeout=LONG) == 3


def test_process_that_says_bye_is_not_missed(lost, port):
    parting = Peer(port, 1)
    parting.say("bye")
    parting.end()
    Peer(port, 2).end()
    assert lost.get(timeout=LONG) == 2


def test_strangers_are_turned_away_and_not_missed(lost, port):
    stranger = Peer(port, 1, token="wrong")
    assert stranger.lines.readline() == ""
    stranger.end()
    Peer(port, 2).end()
    assert lost.get(timeout=LONG) == 2
    assert lost.empty()


def test_others_notice_the_end_of_process_0():
    lost: queue.Queue = queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as server:
        Lifeline(lost.put).connect(*server.getsockname(), index=5, token="token")
        connection, _ = server.accept()
        assert connection.makefile("r").readline() == "token 5\n"
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()
    assert lost.get(timeout=LONG) == 0


def test_who_parts_on_purpose_ends_nobody():
    lost: queue.Queue = queue.Queue()
    first, second = Lifeline(lost.put), Lifeline(lost.put)
    second.connect("127.0.0.1", first.listen("token"), index=1, token="token")
    second.part()
    first.part()
    second._peers[0].shutdown(socket.SHUT_RDWR)
    first.linger()
    assert lost.empty()


def test_process_0_lingers_for_who_has_only_just_connected(monkeypatch):
    starting, start = threading.Event(), threading.Thread.start

    def late(thread: threading.Thread) -> None:
        if thread.name == "lifeline":
            starting.set()
            time.sleep(0.2)
        start(thread)

    first = Lifeline(lambda index: None)
    port = first.listen("token")
    monkeypatch.setattr(threading.Thread, "start", late)
    second = Peer(port, 1)
    assert starting.wait(LONG)
    second.say("bye")
    second.end()
    first.linger()
    (watcher,) = first._watchers.values()
    assert not watcher.is_alive()


def test_who_fails_takes_the_others_along():
    lost: queue.Queue = queue.Queue()
    first, second = Lifeline(lost.put), Lifeline(lambda index: None)
    second.connect("127.0.0.1", first.listen("token"), index=1, token="token")
    second.part(lost=1)
    assert lost.get(timeout=LONG) == 1

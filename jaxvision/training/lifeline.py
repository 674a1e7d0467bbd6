"""How processes that train together notice at once that one of them has gone.

Process 0 holds a TCP connection to each of the others, and nothing but farewells goes
over it: whichever way a process ends, the kernel closes its connections. JAX's own
heartbeats find out later, and end a process with a page of addresses from inside JAX;
they remain for hosts that fall silent without closing anything.
"""

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import TextIO

LINGER_SECONDS = 10.0
"""How long process 0, whose end JAX lets no other survive, waits for theirs."""

_HELLO_SECONDS = 10.0


class Lifeline:
    """One process's end of it. Process 0 calls `listen`, the others `connect`."""

    def __init__(self, on_loss: Callable[[int], None]) -> None:
        """on_loss: is told, in another thread and once, which process has gone."""
        self._on_loss = on_loss
        self._lock = threading.Lock()
        self._over = False
        self._listening = False
        self._peers: dict[int, socket.socket] = {}
        self._watchers: dict[int, threading.Thread] = {}

    def listen(self, token: str) -> int:
        """Accepts connections from now on; those that begin with the token count.

        Returns:
          The port.
        """
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        server = socket.create_server(("", 0), family=family, dualstack_ipv6=dual)
        self._listening = True
        threading.Thread(
            target=self._accept, args=(server, token), name="lifeline", daemon=True
        ).start()
        return server.getsockname()[1]

    def connect(self, host: str, port: int, *, index: int, token: str) -> None:
        """Connects with process 0.

        Raises:
          OSError: it cannot be reached.
        """
        connection = socket.create_connection((host, port), timeout=_HELLO_SECONDS)
        connection.settimeout(None)
        connection.sendall(f"{token} {index}\n".encode())
        self._add(0, connection, connection.makefile("r"))

    def part(self, lost: int | None = None) -> None:
        """To be called before this process ends on purpose.

        lost: the process whose end is the reason, this one if it failed; None: the
            work is done, and the others can go on without this one.
        """
        farewell = "bye\n" if lost is None else f"lost {lost}\n"
        with self._lock:
            # Process 0 may still fail: the others have to hear of that.
            self._over = self._over or self._listening or lost is not None
            peers = dict(self._peers)
        for index, connection in peers.items():
            if index != lost:
                with contextlib.suppress(OSError):
                    connection.sendall(farewell.encode())

    def linger(self) -> None:
        """In process 0 returns when the others have ended, or after a while."""
        if not self._listening:
            return
        end = time.monotonic() + LINGER_SECONDS
        with self._lock:
            watchers = list(self._watchers.values())
        for watcher in watchers:
            if watcher is not threading.current_thread():
                watcher.join(max(end - time.monotonic(), 0.0))

    def _accept(self, server: socket.socket, token: str) -> None:
        while True:
            connection, _ = server.accept()
            # A port scanner is not one of us.
            connection.settimeout(_HELLO_SECONDS)
            lines = connection.makefile("r", errors="replace")
            with contextlib.suppress(OSError, ValueError):
                given, index = lines.readline(256).split()
                if secrets.compare_digest(given.encode(), token.encode()):
                    connection.settimeout(None)
                    self._add(int(index), connection, lines)
                    continue
            lines.close()
            connection.close()

    def _add(self, index: int, connection: socket.socket, lines: TextIO) -> None:
        watcher = threading.Thread(
            target=self._watch, args=(index, lines), name="lifeline", daemon=True
        )
        with self._lock:
            # Started before anyone sees it: what has not been cannot be joined.
            watcher.start()
            self._peers[index], self._watchers[index] = connection, watcher

    def _watch(self, index: int, lines: TextIO) -> None:
        lost, parted = index, False
        with contextlib.suppress(OSError), lines:
            for line in lines:
                word, _, number = line.strip().partition(" ")
                if word == "bye":
                    parted = True
                elif word == "lost":
                    lost = int(number)
                    break
        if not parted:
            self._lose(lost)

    def _lose(self, index: int) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        self.part(lost=index)
        self._on_loss(index)

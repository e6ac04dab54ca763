"""Downloads from a server in this process: right, interrupted, wrong, and hostile archives."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from minires.data import CIFAR10
from minires.data.download import download, extract
from minires.errors import DataError

CONTENT = np.random.default_rng(0).bytes(300_000)


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.content``; may break off after ``server.most`` bytes or ignore ranges."""

    def do_GET(self):
        start = 0
        if self.server.ranges and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.server.starts.append(start)
        if self.path == "/missing":
            self.send_error(404, "Not Found")
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.most])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.content, made.ranges, made.most, made.starts = CONTENT, True, None, []
    made.url = f"http://127.0.0.1:{made.server_port}/file.bin"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def fetch(server, path, content=CONTENT, url=None):
    download(url or server.url, path, sha256=hashlib.sha256(content).hexdigest(), size=len(content), timeout=5)


def test_download_and_keep(server, tmp_path):
    path = tmp_path / "new" / "file.bin"
    fetch(server, path)
    assert path.read_bytes() == CONTENT and [each.name for each in path.parent.iterdir()] == ["file.bin"]
    fetch(server, path)
    assert server.starts == [0]
    path.write_bytes(CONTENT[:-1] + b"?")
    fetch(server, path)  # not the right file: fetched again
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_continues(server, tmp_path, ranges):
    path = tmp_path / "file.bin"
    server.most, server.ranges = 100_000, ranges
    with pytest.raises(DataError, match="run it again to continue"):
        fetch(server, path)
    assert not path.exists() and (tmp_path / "file.bin.part").stat().st_size == 100_000
    server.most = None
    fetch(server, path)
    assert path.read_bytes() == CONTENT and not (tmp_path / "file.bin.part").exists()
    assert server.starts == ([0, 100_000] if ranges else [0, 0])


def test_wrong_content_is_not_kept(server, tmp_path):
    with pytest.raises(DataError, match="wrong content, expected 300000 bytes with SHA-256"):
        fetch(server, tmp_path / "file.bin", bytes(300_000))
    assert not any(tmp_path.iterdir())
    with pytest.raises(DataError, match="wrong content"):  # more than expected
        fetch(server, tmp_path / "file.bin", CONTENT[:1000])
    assert not any(tmp_path.iterdir())


def test_a_leftover_that_is_too_long_starts_again(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(bytes(400_000))
    fetch(server, tmp_path / "file.bin")
    assert server.starts == [0]


def test_a_complete_leftover_needs_no_server(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch(None, tmp_path / "file.bin", url="http://127.0.0.1:1/file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_no_answer_and_not_found(server, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"cannot download .*: Not Found"):
        fetch(server, tmp_path / "file.bin", url=server.url.replace("file.bin", "missing"))
    with pytest.raises(DataError, match=r"cannot download .*refused.*run it again"):
        fetch(server, tmp_path / "file.bin", url="http://127.0.0.1:1/file.bin")
    monkeypatch.setattr(CIFAR10, "source", CIFAR10.source._replace(url="http://127.0.0.1:1/cifar.tar.gz"))
    with pytest.raises(DataError, match=r"cannot download http://127\.0\.0\.1:1/cifar\.tar\.gz"):
        CIFAR10(tmp_path, download=True)


def archive(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return packed.getvalue()


def test_extract_writes_only_what_was_asked_for(tmp_path):
    files = {
        "../evil": b"1",
        "/evil": b"2",
        "data/../../evil": b"3",
        "data/other": b"4",
        "data/a": b"A",
        "data/b": b"B",
    }
    (tmp_path / "in.tar.gz").write_bytes(archive(files))
    extract(tmp_path / "in.tar.gz", "data", ["a", "b"], tmp_path / "root")
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["a", "b", "data", "in.tar.gz", "root"]
    assert (tmp_path / "root" / "data" / "a").read_bytes() == b"A"


def test_extract_refuses_links_missing_files_and_broken_archives(tmp_path):
    path = tmp_path / "in.tar.gz"
    for files in ({"data/a": None}, {"data/b": b"B"}, {"a": b"A"}):
        path.write_bytes(archive(files))
        with pytest.raises(DataError, match=r"in\.tar\.gz: expected data/a"):
            extract(path, "data", ["a"], tmp_path)
    whole = archive({"data/a": CONTENT})
    for content in (b"", b"no archive at all", whole[:1000], whole[:-9]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"in\.tar\.gz"):
            extract(path, "data", ["a", "z"], tmp_path)


def test_cifar_downloads_checks_and_unpacks(server, tmp_path, monkeypatch):
    names = (*CIFAR10.source.train_files, *CIFAR10.source.test_files)
    files = {f"cifar-10-batches-bin/{name}": bytes([number]) + bytes(3072) for number, name in enumerate(names)}
    server.content = archive(files)
    source = CIFAR10.source._replace(
        url=server.url, sha256=hashlib.sha256(server.content).hexdigest(), size=len(server.content)
    )
    monkeypatch.setattr(CIFAR10, "source", source)
    assert CIFAR10(tmp_path, download=True).labels.tolist() == [0, 1, 2, 3, 4]
    assert CIFAR10(tmp_path, train=False, download=True).labels.tolist() == [5]
    assert server.starts == [0]
    assert [each.name for each in tmp_path.iterdir()] == ["cifar-10-batches-bin"]

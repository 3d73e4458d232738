"""The loopback Hub's content-addressed storage, with the real Xet client."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import fastapi
import hf_xet
import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from tests.loopback.xet import XetStore
from tests.loopback.xet.hashes import hash_bytes, hash_text
from tests.loopback.xet.reconstruction import reconstruct
from tests.loopback.xet.shard import FileInfo, Term, parse_shard, serialize_deduplication_shard
from tests.loopback.xet.xorb import HEADER_BYTES, Chunk, Compression, parse_xorb, unpack_chunk

TOKEN = "a-token"


@dataclass(frozen=True)
class Client:
    """The Xet client in this process, against one store."""

    store: XetStore
    url: str
    monkeypatch: pytest.MonkeyPatch

    def upload(
        self, files: Mapping[str, bytes], cache: Path, token: str = TOKEN
    ) -> dict[str, hf_xet.XetFileInfo]:
        """Send files in one session; `cache` is where the client remembers what it sent."""
        self.monkeypatch.setenv("HF_XET_CACHE", str(cache))
        commit = hf_xet.XetSession().new_upload_commit(**self._connection(token))
        uploads = {
            name: commit.start_upload_bytes(content, sha256=hf_xet.COMPUTE_SHA256, name=name)
            for name, content in files.items()
        }
        commit.wait_to_finish()
        return {name: upload.result().xet_info for name, upload in uploads.items()}

    def download(self, info: hf_xet.XetFileInfo, start: int, end: int) -> bytes:
        group = hf_xet.XetSession().new_download_stream_group(**self._connection(TOKEN))
        return b"".join(group.download_stream(info, start=start, end=end))

    def _connection(self, token: str) -> dict[str, object]:
        expiry = int(time.time()) + 3600
        return {"endpoint": self.url, "token": token, "token_expiry_unix_secs": expiry}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    store = XetStore(tmp_path / "store", authorize=lambda token: token == TOKEN)
    app = fastapi.FastAPI()
    app.include_router(store.router)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_XET_TELEMETRY_ENABLED", "false")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield Client(store, f"http://127.0.0.1:{listener.getsockname()[1]}", monkeypatch)
        server.should_exit = True
        thread.join()


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def weights(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def truncated_to_bfloat16(values: np.ndarray) -> bytes:
    return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()


CONTENTS = {
    "noise": noise(300_001),
    "float32": weights(200_001).tobytes(),
    "bfloat16": truncated_to_bfloat16(weights(1_000_001)),
    "text": b"a line of text\n" * 20_000,
    "one byte": b"x",
    "empty": b"",
    "one chunk over and over": bytes(3_000_000),
}


def test_what_is_uploaded_reads_back(client: Client, tmp_path: Path) -> None:
    infos = client.upload(CONTENTS, tmp_path / "cache")
    for name, content in CONTENTS.items():
        info = infos[name]
        assert client.store.by_sha256(hashlib.sha256(content).hexdigest()) == info.hash, name
        assert client.store.size(info.hash) == len(content)
        assert b"".join(client.store.read(info.hash)) == content, name
        if content:
            assert client.download(info, 0, len(content)) == content, name
    stored = [
        chunk.compression
        for path in (tmp_path / "store" / "xorbs").iterdir()
        for chunk in parse_xorb(path.read_bytes())
    ]
    assert set(stored) == set(Compression)


def test_a_file_of_several_xorbs(client: Client, tmp_path: Path) -> None:
    content = np.arange(18_000_000, dtype=np.uint32).tobytes()
    info = client.upload({"numbers": content}, tmp_path / "cache")["numbers"]
    assert client.store.xorbs_received >= 2
    assert b"".join(client.store.read(info.hash)) == content
    for start, end in [
        (0, len(content)),
        (66_000_000, 70_000_001),
        (len(content) - 1, len(content)),
    ]:
        assert client.download(info, start, end) == content[start:end]


def test_the_same_file_is_not_sent_twice(client: Client, tmp_path: Path) -> None:
    content = noise(4_000_000)
    first = client.upload({"first": content}, tmp_path / "cache")["first"]
    received, xorbs = client.store.received_bytes, client.store.xorbs_received
    assert received > len(content)
    second = client.upload({"second": content}, tmp_path / "cache")["second"]
    assert second.hash == first.hash
    assert client.store.xorbs_received == xorbs
    assert client.store.received_bytes - received < 5000


def test_another_machine_finds_the_chunks_on_the_server(client: Client, tmp_path: Path) -> None:
    content = noise(4_000_000)
    client.upload({"here": content}, tmp_path / "cache")
    xorbs = client.store.xorbs_received
    info = client.upload({"there": content}, tmp_path / "another cache")["there"]
    assert client.store.xorbs_received == xorbs
    assert client.download(info, 0, len(content)) == content


def test_a_change_sends_only_the_change(client: Client, tmp_path: Path) -> None:
    old = noise(16_000_000)
    new = old[:7_000_000] + noise(1_000_000, seed=1) + old[8_000_000:]
    client.upload({"model": old}, tmp_path / "cache")
    received = client.store.received_bytes
    info = client.upload({"model": new}, tmp_path / "cache")["model"]
    assert 1_000_000 < client.store.received_bytes - received < 1_300_000
    assert b"".join(client.store.read(info.hash)) == new
    assert client.download(info, 0, len(new)) == new


def test_a_token_that_is_not_valid_stores_nothing(client: Client, tmp_path: Path) -> None:
    with pytest.raises((OSError, RuntimeError), match=r"401|[Uu]nauthorized|[Aa]uth"):
        client.upload({"noise": noise(1000)}, tmp_path / "cache", token="another")
    assert client.store.received_bytes == 0
    assert list((tmp_path / "store" / "xorbs").iterdir()) == []


def test_a_new_process_finds_the_content(client: Client, tmp_path: Path) -> None:
    info = client.upload({"noise": noise(300_000)}, tmp_path / "cache")["noise"]
    again = XetStore(tmp_path / "store", authorize=lambda _token: False)
    assert again.by_sha256(hashlib.sha256(noise(300_000)).hexdigest()) == info.hash
    assert b"".join(again.read(info.hash)) == noise(300_000)


@dataclass(frozen=True)
class Upload:
    """The bodies of an upload of one file with one xorb."""

    content: bytes
    file: str
    xorb: str
    xorb_body: bytes
    shard_body: bytes


@pytest.fixture
def upload(client: Client, tmp_path: Path) -> Upload:
    content = noise(250_000)
    info = client.upload({"noise": content}, tmp_path / "cache")["noise"]
    (xorb,) = (tmp_path / "store" / "xorbs").iterdir()
    (shard,) = (tmp_path / "store" / "shards").iterdir()
    return Upload(content, info.hash, xorb.name, xorb.read_bytes(), shard.read_bytes())


@pytest.fixture
def empty_store(tmp_path: Path) -> XetStore:
    return XetStore(tmp_path / "empty", authorize=lambda _token: True)


def test_a_damaged_xorb_is_refused(upload: Upload, empty_store: XetStore) -> None:
    # The first chunk's header byte by byte, then content of it, and the xorb's last byte.
    for at in [*range(HEADER_BYTES), 1000, -1]:
        damaged = bytearray(upload.xorb_body)
        damaged[at] ^= 0x01
        with pytest.raises(ValueError):  # noqa: PT011 - each damage is noticed in its own way
            empty_store.add_xorb(upload.xorb, bytes(damaged))
    with pytest.raises(ValueError, match="has the hash"):
        empty_store.add_xorb("0" * 64, upload.xorb_body)
    assert empty_store.add_xorb(upload.xorb, upload.xorb_body)
    assert not empty_store.add_xorb(upload.xorb, upload.xorb_body)


def test_a_file_exists_once_its_shard_is_registered(upload: Upload, empty_store: XetStore) -> None:
    with pytest.raises(ValueError, match=f"no xorb {upload.xorb}"):
        empty_store.add_shard(upload.shard_body)
    empty_store.add_xorb(upload.xorb, upload.xorb_body)
    sha256 = hashlib.sha256(upload.content).hexdigest()
    assert empty_store.by_sha256(sha256) is None
    assert empty_store.add_shard(upload.shard_body)
    assert empty_store.by_sha256(sha256) == upload.file
    assert not empty_store.add_shard(upload.shard_body)


def test_a_shard_that_misstates_a_file_is_refused(upload: Upload, empty_store: XetStore) -> None:
    empty_store.add_xorb(upload.xorb, upload.xorb_body)
    (file,) = parse_shard(upload.shard_body).files
    (term,) = file.terms
    assert file.sha256 == hashlib.sha256(upload.content).hexdigest()
    for text, message in {
        file.hash: "have the hash",
        file.sha256: "SHA-256",
        term.verification: "verification",
    }.items():
        raw = hash_bytes(text)
        assert upload.shard_body.count(raw) == 1
        misstated = upload.shard_body.replace(raw, bytes(31) + b"\x01")
        with pytest.raises(ValueError, match=message):
            empty_store.add_shard(misstated)
    assert empty_store.by_sha256(file.sha256) is None


def test_no_part_of_a_shard_is_a_shard(upload: Upload) -> None:
    for size in range(len(upload.shard_body)):
        with pytest.raises(ValueError):  # noqa: PT011 - it depends on where it ends
            parse_shard(upload.shard_body[:size])


def test_the_text_of_a_hash_is_that_of_the_specification() -> None:
    assert hash_text(bytes(range(32))) == (
        "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918"
    )


@given(st.binary(min_size=32, max_size=32))
def test_a_hash_survives_its_text(raw: bytes) -> None:
    assert hash_bytes(hash_text(raw)) == raw


def stored_chunk(content: bytes, compression: int = 0, version: int = 0) -> bytes:
    size = len(content).to_bytes(3, "little")
    return bytes([version]) + size + bytes([compression]) + size + content


XORB_LIKE = st.lists(
    st.builds(
        stored_chunk,
        st.binary(max_size=40),
        st.integers(0, 4),
        st.sampled_from([0, 0, 0, 1]),
    )
    | st.binary(max_size=12),
    max_size=4,
).map(b"".join)


@given(XORB_LIKE)
def test_any_bytes_are_a_xorb_or_a_value_error(body: bytes) -> None:
    try:
        chunks = parse_xorb(body)
    except ValueError:
        return
    assert [chunk.start for chunk in chunks] == [0, *(chunk.end for chunk in chunks[:-1])]
    assert chunks[-1].end == len(body)
    for chunk in chunks:
        try:
            content = unpack_chunk(body[chunk.start + HEADER_BYTES : chunk.end], chunk)
        except ValueError:
            assert chunk.compression is not Compression.NONE
        else:
            assert len(content) == chunk.size


HEADER = serialize_deduplication_shard([], created=0, expires=0)[:40] + bytes(8)
BOOKEND = b"\xff" * 32 + bytes(16)
NUMBERS = st.sampled_from([0, 1, 2, 3, 1 << 31, 3 << 30, (1 << 32) - 1])
RECORDS = st.just(BOOKEND) | st.builds(
    lambda text, numbers: text * 32 + struct.pack("<4I", *numbers),
    st.binary(min_size=1, max_size=1),
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
)


@given(st.lists(RECORDS, max_size=12).map(b"".join), st.binary(max_size=3))
def test_any_records_are_a_shard_or_a_value_error(records: bytes, rest: bytes) -> None:
    body = HEADER + records + rest
    try:
        shard = parse_shard(body)
    except ValueError:
        return
    entries = sum(
        1 + 2 * len(file.terms) + (file.sha256 is not None) for file in shard.files
    ) + sum(1 + len(xorb.chunks) for xorb in shard.xorbs)
    assert len(body) == len(HEADER) + 48 * (entries + 2)  # and a bookend for each section


@given(st.data())
def test_a_range_of_a_file_is_in_its_pieces(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    chunks = [
        Chunk(sum(sizes[:i]) + HEADER_BYTES * i, size, Compression.NONE, size)
        for i, size in enumerate(sizes)
    ]
    # The content of a chunk is its index, so that a mistaken piece is noticed.
    contents = [bytes([i]) * size for i, size in enumerate(sizes)]
    ranges = st.tuples(st.integers(0, len(sizes)), st.integers(0, len(sizes)))
    terms = [
        Term("a", sum(sizes[first:last]), first, last, "")
        for first, last in data.draw(st.lists(ranges.filter(lambda r: r[0] < r[1]), min_size=1))
    ]
    content = b"".join(b"".join(contents[term.first : term.last]) for term in terms)
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start + 1, len(content)))

    found = reconstruct(FileInfo("", tuple(terms), None), lambda _xorb: chunks, start, end)

    pieces = b"".join(b"".join(contents[piece.first : piece.last]) for piece in found.pieces)
    assert pieces[found.skipped : found.skipped + end - start] == content[start:end]
    assert sum(piece.size for piece in found.pieces) == len(pieces)
    for piece in found.pieces:
        (fetch,) = [f for f in found.fetches if f.first <= piece.first < f.last]
        assert piece.last <= fetch.last
        assert (fetch.start, fetch.end) == (chunks[fetch.first].start, chunks[fetch.last - 1].end)

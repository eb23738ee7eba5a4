"""Histories survive whatever cut their writing off, and bad files are named."""

import errno
import gzip
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftbed.errors import HistoryError
from raftbed.model import Op
from raftbed.record import HistoryWriter, LineWriter, read_history, read_json_lines

WRITE = Op(0, 1200, "invoke", 3, "write", "x", 7)
DONE = Op(1, 2100, "ok", 3, "write", "x", 7, node="n2", client="c3", serial=1)


def written(path: Path, *ops: Op) -> Path:
    writer = HistoryWriter(path, {"test": "smoke-test"})
    for op in ops:
        writer.record(op)
    writer.close()
    return path


def test_round_trip_keeps_events_and_metadata(tmp_path):
    metadata, ops = read_history(written(tmp_path / "h.jsonl", WRITE, DONE))
    assert metadata == {"schema": "raftbed.history/1", "test": "smoke-test"}
    assert ops == [WRITE, DONE]


def test_events_are_numbered_in_the_order_of_recording(tmp_path):
    _, ops = read_history(written(tmp_path / "h.jsonl", DONE, DONE, WRITE))
    assert [op.index for op in ops] == [0, 1, 2]


def test_history_is_private(tmp_path):
    path = written(tmp_path / "h.jsonl", WRITE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_event_is_in_the_file_before_the_next_is_recorded(tmp_path):
    writer = HistoryWriter(tmp_path / "h.jsonl")
    writer.record(WRITE)
    assert read_history(tmp_path / "h.jsonl")[1] == [WRITE]
    writer.close()


class FullDisk:
    """Stands for os.write: takes as many more bytes as there is room, and then fails as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self._write, self._ftruncate = os.write, os.ftruncate
        self.takes_back = True
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "ftruncate", self.ftruncate)

    def write(self, fd: int, data: memoryview) -> int:
        if self.room is None:
            return self._write(fd, data)
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(fd, data[: self.room])
        self.room -= written
        return written

    def ftruncate(self, fd: int, length: int) -> None:
        if not self.takes_back:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._ftruncate(fd, length)


@pytest.mark.parametrize("room", [0, 1, 40])
@pytest.mark.parametrize("takes_back", [True, False])
def test_what_is_recorded_after_a_full_disk_has_room_again_stands_behind_whole_lines(
    tmp_path, monkeypatch, room, takes_back
):
    disk = FullDisk(monkeypatch)
    writer = HistoryWriter(tmp_path / "h.jsonl")
    writer.record(WRITE)
    disk.room, disk.takes_back = room, takes_back
    with pytest.raises(OSError, match="No space left"):
        writer.record(DONE)
    assert read_history(tmp_path / "h.jsonl")[1] == [WRITE]
    disk.room, disk.takes_back = None, True
    writer.record(DONE)
    writer.close()
    assert read_history(tmp_path / "h.jsonl")[1] == [WRITE, DONE]


def test_nothing_is_written_behind_a_torn_line_that_cannot_be_taken_back(tmp_path, monkeypatch):
    disk = FullDisk(monkeypatch)
    writer = LineWriter(tmp_path / "x.jsonl")
    writer.write({"a": 1})
    disk.room, disk.takes_back = 3, False
    with pytest.raises(OSError, match="No space left"):
        writer.write({"b": 2})
    disk.room = None
    with pytest.raises(OSError, match="Input/output error"):
        writer.write({"c": 3})
    writer.close()
    assert read_json_lines(tmp_path / "x.jsonl") == [{"a": 1}]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(cut=st.integers(0, 400))
def test_a_file_cut_at_any_byte_reads_as_a_prefix(tmp_path, cut):
    whole = written(tmp_path / "whole.jsonl", WRITE, DONE).read_bytes()
    (tmp_path / "whole.jsonl").unlink()
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(whole[:cut])
    _, ops = read_history(torn)
    assert ops == [WRITE, DONE][: len(ops)]


def test_compressed_history_cut_in_the_middle_reads_as_a_prefix(tmp_path):
    whole = gzip.compress(written(tmp_path / "h.jsonl", *[WRITE, DONE] * 500).read_bytes())
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(whole[: len(whole) // 2])
    _, ops = read_history(torn)
    assert 0 < len(ops) < 1000


def test_unknown_fields_are_ignored(tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_text('{"index":0,"time":1,"type":"ok","process":1,"f":"read","value":null,"mood":"good"}\n')
    assert read_history(path)[1] == [Op(0, 1, "ok", 1, "read")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json\n{}\n", "line 1"),
        ('{"index":0,"time":1,"type":"done","process":1,"f":"read"}\n{}\n', "'done'"),
        ('{"schema":"raftbed.history/9"}\n', "raftbed.history/9"),
        ('{"schema":"raftbed.history/1"}\n{"index":0}\n{}\n', "line 2"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, content, said):
    path = tmp_path / "h.jsonl"
    path.write_text(content)
    with pytest.raises(HistoryError, match=said) as caught:
        read_history(path)
    assert str(path) in str(caught.value)


def line(index: int, value: str = "null") -> str:
    return f'{{"index":{index},"time":1,"type":"invoke","process":{index},"f":"write","key":"x","value":{value}}}\n'


# Events are judged in the order of the file; sorted otherwise they are another history, and with one left out, too.
@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(line(0) + line(2) + line(1), "line 2 has index 2, where 1 comes next", id="out of order"),
        pytest.param(line(0) + line(2), "line 2 has index 2, where 1 comes next", id="one left out"),
        pytest.param(line(0) + line(0), "line 2 has index 0, where 1 comes next", id="twice"),
        pytest.param(line(1), "line 1 has index 1, where 0 comes next", id="without the first"),
        pytest.param('{"schema":"raftbed.history/1"}\n\n' + line(1), "line 3 has index 1", id="lines are counted"),
    ],
)
def test_a_history_whose_events_are_not_in_their_order_is_refused(tmp_path, content, said):
    (tmp_path / "h.jsonl").write_text(content)
    with pytest.raises(HistoryError, match=said) as caught:
        read_history(tmp_path / "h.jsonl")
    assert "every event stands at its index" in caught.value.remedy


def test_a_value_that_is_nested_without_end_is_refused(tmp_path):
    # Decoding allows for about 990 levels; whoever encodes the value again stands deeper in the stack, and fails first.
    path = tmp_path / "h.jsonl"
    for levels in (257, 960, 5000):
        path.write_text(line(0) + line(1, "[" * levels + "]" * levels))
        with pytest.raises(HistoryError, match=r"h\.jsonl: line 2 is"):
            read_history(path)
        with pytest.raises(HistoryError, match=r"h\.jsonl: line 2 is"):
            read_json_lines(path)


def test_values_as_deep_as_the_nodes_take_them_are_read(tmp_path):
    path = tmp_path / "h.jsonl"
    nested, brackets = "[" * 201 + "]" * 201, '"' + "[{" * 1000 + '"'
    path.write_text(line(0, nested) + line(1, f"[{brackets},{brackets}]"))
    assert len(read_history(path)[1]) == len(read_json_lines(path)) == 2


def test_a_byte_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "h.jsonl"
    event = '{"index":0,"time":1,"type":"ok","process":1,"f":"read","key":"café"}\n'
    path.write_bytes((event * 2).encode("latin-1"))
    with pytest.raises(HistoryError, match=r"h\.jsonl: line 1 is not an event of a history: it holds the byte 0xe9"):
        read_history(path)
    with pytest.raises(HistoryError, match=r"h\.jsonl: line 1 is not JSON: it holds the byte 0xe9"):
        read_json_lines(path)


def test_a_last_line_that_is_torn_and_not_utf8_is_passed_over(tmp_path):
    path = written(tmp_path / "h.jsonl", WRITE)
    path.write_bytes(path.read_bytes() + b'{"error":"caf\xe9"}')
    assert read_history(path)[1] == [WRITE]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(HistoryError, match=r"gone\.jsonl: cannot be read: No such file"):
        read_history(tmp_path / "gone.jsonl")


def test_a_file_that_is_no_gzip_is_named(tmp_path):
    (tmp_path / "h.jsonl.gz").write_text("plain")
    with pytest.raises(HistoryError, match="is not compressed by gzip"):
        read_history(tmp_path / "h.jsonl.gz")


def test_json_lines_must_be_objects(tmp_path):
    (tmp_path / "x.jsonl").write_text("{}\n[1]\n{}\n")
    with pytest.raises(HistoryError, match="line 2 is not a JSON object"):
        read_json_lines(tmp_path / "x.jsonl")

import os

import pytest

from checkpoints import content
from checkpoints.artifact import file_hash
from checkpoints.content import content_hashes, memory_of, refuse_changed
from checkpoints.errors import UserError


@pytest.fixture(autouse=True)
def forget(monkeypatch, tmp_path):
    monkeypatch.setattr(content, "_known", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def content_hash(file, *, again=False):
    return content_hashes(file.parent, [file.name], again=again)[file.name]


def content_hash_of(file, data):
    file.write_bytes(data)
    return content_hash(file)


def test_a_file_is_hashed_once_per_change(tmp_path, monkeypatch):
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    calls = []
    monkeypatch.setattr(content, "file_hash", lambda path: calls.append(path) or file_hash(path))
    first = content_hash(file)
    content._known.clear()  # another process
    assert content_hash(file) == first == file_hash(file) and len(calls) == 1
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert content_hash(file) == file_hash(file) != first and len(calls) == 2
    content_hash(file, again=True)
    assert len(calls) == 3


@pytest.mark.parametrize("text", ["", "[]\n", '["a.bin", 3]\n', '["a.bin", 3', "[" * 99_999, b"\xff\n"])
def test_a_damaged_memory_is_no_obstacle(tmp_path, text):
    (tmp_path / "a.bin").write_bytes(b"one")
    memory_of(tmp_path).parent.mkdir(parents=True)
    memory_of(tmp_path).write_bytes(text if isinstance(text, bytes) else text.encode())
    for _ in range(3):
        assert content_hash(tmp_path / "a.bin") == file_hash(tmp_path / "a.bin")
        content._known.clear()


def test_processes_that_hash_at_the_same_time_forget_nothing_and_write_each_hash_once(tmp_path, monkeypatch):
    names = [f"{number:02d}.bin" for number in range(20)]
    processes = [{}, {}]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(name.encode())
        monkeypatch.setattr(content, "_known", processes[number % 2])
        content_hash(tmp_path / name)
    assert len(memory_of(tmp_path).read_text().splitlines()) == len(names)
    monkeypatch.setattr(content, "file_hash", lambda path: pytest.fail(f"{path} is hashed again"))
    for known in (*processes, {}):
        monkeypatch.setattr(content, "_known", known)
        assert content_hashes(tmp_path, names) == {name: file_hash(tmp_path / name) for name in names}


def test_a_memory_that_was_removed_is_begun_again(tmp_path):
    for name in ("a.bin", "b.bin"):
        content_hash_of(tmp_path / name, name.encode())
    memory_of(tmp_path).unlink()
    content_hash_of(tmp_path / "c.bin", b"three")
    content._known.clear()
    assert list(content._recalled(tmp_path)) == ["c.bin"]


def test_a_whole_file_is_not_refused_for_a_damaged_memory(tmp_path):
    whole = content_hash_of(tmp_path / "a.bin", b"one")
    memory = memory_of(tmp_path)
    memory.write_text(memory.read_text().replace(whole, "0" * 64))
    content._known.clear()
    refuse_changed(tmp_path, {"a.bin": whole}, "header.json")
    content._known.clear()
    assert content_hash(tmp_path / "a.bin") == whole


def test_a_changed_or_missing_file_is_refused_by_name(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    refuse_changed(tmp_path, {"a.bin": file_hash(file)}, "header.json")
    with pytest.raises(UserError, match=r"a\.bin was changed after .*header\.json was written"):
        refuse_changed(tmp_path, {"a.bin": "0" * 64}, "header.json")
    with pytest.raises(UserError, match=r"b\.bin cannot be read"):
        refuse_changed(tmp_path, {"b.bin": "0" * 64}, "header.json")


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(b"one")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert content_hash(tmp_path / "a.bin") == file_hash(tmp_path / "a.bin")
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", "file"}  # nothing is left beside the artifact

import os

import pytest

from checkpoints import content
from checkpoints.artifact import file_hash
from checkpoints.content import MEMORY, content_hash, refuse_changed
from checkpoints.errors import UserError


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(content, "_known", {})


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


@pytest.mark.parametrize("text", ["", "[]", '{"a.bin": 3}', "{"])
def test_a_damaged_memory_is_made_again(tmp_path, text):
    (tmp_path / "a.bin").write_bytes(b"one")
    (tmp_path / MEMORY).write_text(text)
    assert content_hash(tmp_path / "a.bin") == file_hash(tmp_path / "a.bin")


def test_a_changed_or_missing_file_is_refused_by_name(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    refuse_changed(tmp_path, {"a.bin": file_hash(file)}, "header.json")
    with pytest.raises(UserError, match=r"a\.bin was changed after .*header\.json was written"):
        refuse_changed(tmp_path, {"a.bin": "0" * 64}, "header.json")
    with pytest.raises(UserError, match=r"b\.bin cannot be read"):
        refuse_changed(tmp_path, {"b.bin": "0" * 64}, "header.json")

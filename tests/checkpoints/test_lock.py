import errno
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from checkpoints import lock
from checkpoints.artifact import temporary_sibling
from checkpoints.errors import UserError
from checkpoints.lock import LOCK, locked, sole_writer


@contextmanager
def another_process(directory):
    """Holds a lock until the block ends, or until it is killed."""
    code = (
        "import sys; from pathlib import Path; from checkpoints.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.communicate()


def test_a_second_writer_is_refused_by_name_until_the_first_has_ended(tmp_path):
    with another_process(tmp_path) as process:
        with pytest.raises(UserError, match=rf"is being written by .*process {process.pid} on "), locked(tmp_path):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    assert not list(tmp_path.iterdir())


def test_a_dead_writers_place_is_taken_and_what_it_was_writing_is_removed(tmp_path):
    (tmp_path / "deep").mkdir()
    with another_process(tmp_path) as process:
        process.kill()
    assert (tmp_path / LOCK).exists()
    half, whole = temporary_sibling(tmp_path / "deep" / "model.safetensors"), tmp_path / "deep" / ".other.tmp"
    for path in (half, whole):
        path.write_bytes(b"half")
    temporary_sibling(tmp_path / "state").mkdir()
    with locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", whole.name]


def test_the_worker_of_a_dead_writer_holds_nothing(tmp_path):
    """As those of a loader, which live for seconds longer than their trainer."""
    code = (
        "import os, sys, time; from pathlib import Path; from checkpoints.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    if os.fork() == 0: time.sleep(60); os._exit(0)\n"
        "    print('held', flush=True); os._exit(9)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.wait() == 9
        with locked(tmp_path):
            pass
    finally:
        os.killpg(process.pid, 9)


def test_this_process_is_no_exception(tmp_path):
    with locked(tmp_path), pytest.raises(UserError, match="is being written by this process"), locked(tmp_path):
        pass


def test_nothing_is_left_where_nothing_was_written(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "x").write_text("")
    assert (tmp_path / "a" / "b" / "x").exists()


def test_a_file_or_a_loop_of_links_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, said in (("file", "File exists"), ("file/deeper", "Not a directory"), ("loop/deeper", "symbolic links")):
        with pytest.raises(UserError, match=f"{said}: choose another path"), locked(tmp_path / path):
            pass


@pytest.mark.parametrize(("number", "warned"), [(errno.EROFS, False), (errno.ENOLCK, True)])
def test_where_nothing_can_be_locked_a_finished_run_can_still_be_read(tmp_path, monkeypatch, capsys, number, warned):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((lock.fcntl, "lockf") if warned else (lock.os, "open")), refuse)
    with locked(tmp_path):
        pass
    assert ("without locks" in capsys.readouterr().err) == warned


def test_only_the_first_of_several_processes_locks(tmp_path, monkeypatch):
    @dataclass
    class Config:
        out: Path

    @sole_writer
    def command(config):
        return (config.out / LOCK).exists()

    assert command(Config(tmp_path))
    monkeypatch.setenv("RANK", "1")
    assert not command(Config(tmp_path))

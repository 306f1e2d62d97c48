import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from checkpoints.artifact import Header, atomic_file, fingerprint, read_header, read_json, write_header, write_json
from checkpoints.errors import UserError, guarded


def header(directory, **changes):
    write_header(
        directory,
        "thing.json",
        **{"kind": "thing", "schema": 1, "made_by": "test", "config": {}, "parents": {}} | changes,
    )


def test_atomic_file_leaves_the_old_content_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_atomic_file_renames(tmp_path):
    with atomic_file(tmp_path / "new" / "a.txt") as temporary:
        assert not (tmp_path / "new" / "a.txt").exists()
        temporary.write_text("whole")
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"


def test_json_round_trip_and_errors(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, "é"]})
    assert read_json(tmp_path / "a.json") == {"b": [1, "é"]}
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "b.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(UserError, match=r"c\.json cannot be read"):
        read_json(tmp_path / "c.json")


def test_fingerprint_sees_names_and_bytes_but_not_order(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    a, b = tmp_path / "a", tmp_path / "b"
    assert fingerprint([a, b]) == fingerprint([b, a]) != fingerprint([a])
    before = fingerprint([a, b])
    a.write_text("c")
    assert fingerprint([a, b]) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"schema": True}, "schema True"),
        ({"kind": "other"}, "describes a other, not a thing"),
        ({"config": []}, r"config is \[\], expected an object"),
        ({"parents": {"a": 1}}, r"parents\.a is 1, expected text"),
    ],
)
def test_header_of_another_schema_or_kind_is_refused(tmp_path, changes, message):
    header(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        read_header(tmp_path, "thing.json", kind="thing", schema=1, form=Header)


def test_header_missing(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_header(tmp_path / "no", "thing.json", kind="thing", schema=1, form=Header)
    with pytest.raises(UserError, match="no complete thing"):
        read_header(tmp_path, "thing.json", kind="thing", schema=1, form=Header)


def test_header_names_no_absolute_path_and_no_time(tmp_path):
    header(tmp_path)
    content = json.loads((tmp_path / "thing.json").read_text())
    assert set(content) == {"kind", "schema", "made_by", "config", "parents", "seal"}
    assert read_header(tmp_path, "thing.json", kind="thing", schema=1, form=Header) == content


@pytest.mark.parametrize("old", ["wildaffect", "seal", "sha256", '"b"'])
def test_a_header_whose_text_was_changed_is_refused(tmp_path, old):
    header(tmp_path, parents={"a": "b"}, config={"1": (2.5, None), "é": 1e-7})
    path = tmp_path / "thing.json"
    text = path.read_text()
    path.write_text(text.replace(old, old.replace("a", "e").replace("b", "c")))
    with pytest.raises(UserError, match=r"thing\.json was changed after it was written"):
        read_header(tmp_path, "thing.json", kind="thing", schema=1, form=Header)
    content = json.loads(text)
    del content["seal"]  # as older versions wrote it
    path.write_text(json.dumps(content))
    assert read_header(tmp_path, "thing.json", kind="thing", schema=1, form=Header) == content


def test_what_a_worker_refuses_is_said_in_one_line(capsys):
    """A loader's worker passes its whole traceback as the message."""

    class Refusing(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise UserError("the picture is broken: check the store")

    loader = torch.utils.data.DataLoader(Refusing(), num_workers=1, multiprocessing_context="fork")
    with pytest.raises(SystemExit):
        guarded(lambda: list(loader))
    assert capsys.readouterr().err == "error: the picture is broken: check the store\n"


def test_guarded_ends_with_one_line_and_status_2(capsys):
    def main():
        raise UserError("labels.txt line 3: not a number")

    with pytest.raises(SystemExit) as stop:
        guarded(main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: labels.txt line 3: not a number\n"


@pytest.mark.parametrize("output", ["stdout", "stderr"])
@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("wrong", [True, False])
def test_a_reader_who_leaves_ends_a_command_quietly(output, flush, wrong):
    """As `| head` does; also while an error is reported, and if nothing is written before the end."""
    code = f"""
import sys
from checkpoints.errors import UserError, guarded
def main():
    input()
    for _ in range(9):
        print("line", file=sys.{output}, flush={flush})
    if {wrong}:
        raise UserError("wrong")
guarded(main)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes, text=True) as command:
        getattr(command, output).close()
        command.stdin.write("\n")
        command.stdin.flush()
        said = "" if output == "stderr" else command.stderr.read()
        assert command.wait() == 141
    assert said in ("", "error: wrong\n")


def test_another_broken_pipe_is_an_error():
    def main():
        raise BrokenPipeError("a worker has gone")

    with pytest.raises(BrokenPipeError):
        guarded(main)


def test_an_error_of_the_system_is_one_line_too(tmp_path):
    """A disk that is full in the middle of a file, whoever writes it; `RLIMIT_FSIZE` plays the disk."""
    code = """if True:
        import resource, sys
        from pathlib import Path
        import numpy as np
        from safetensors.numpy import save_file
        from checkpoints.artifact import atomic_file, write_json
        from checkpoints.errors import guarded
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        def safetensors():
            with atomic_file(Path("weights")) as temporary:
                save_file({"x": np.zeros(9999)}, temporary)
        guarded({"json": lambda: write_json(Path("header"), "x" * 9999), "safetensors": safetensors}[sys.argv[1]])
    """
    for what, file in (("json", "header"), ("safetensors", "weights")):
        done = subprocess.run(
            [sys.executable, "-c", code, what], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        said = f"error: {file}: File too large: free some space, then run the same command again to continue\n"
        assert done.stderr == said
    assert not list(tmp_path.iterdir())


def test_a_full_log_is_one_line():
    command = [sys.executable, "-c", "from checkpoints.errors import guarded; guarded(lambda: print('much'))"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "error: No space left on device: free some space, then run the same command again to continue\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_librarys_error_keeps_its_traceback():
    def main():
        raise OSError("cannot identify the picture")

    with pytest.raises(OSError, match="cannot identify"):
        guarded(main)

import os
import signal
import time
from pathlib import Path

from preprocessing import workers


def is_running(process):
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and " Z " not in stat.read_text()


def test_a_worker_ends_with_its_killed_parent():
    reads, writes = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            process = workers._process()
            os.write(writes, str(process.submit(os.getpid).result()).encode())
            signal.pause()
        finally:
            os._exit(1)
    worker = int(os.read(reads, 20))
    assert is_running(worker)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 60
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(worker)

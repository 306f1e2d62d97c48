"""Preprocessing on a Ray cluster of two nodes on this machine."""

import threading

import numpy as np
import psutil
import pytest
import torch

from checkpoints.errors import UserError
from preprocessing.align import encode_jpeg
from preprocessing.run import Config, run
from preprocessing.shard import LOG
from tests.preprocessing.test_run import content

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

SHARDS = 20


@pytest.fixture
def source(tmp_path):
    """Folders of frames with a shard each."""
    rng = np.random.default_rng(0)
    faces = [encode_jpeg(rng.integers(0, 255, (160, 160, 3), np.uint8)) for _ in range(60)]
    for number in range(SHARDS):
        folder = tmp_path / "source" / f"v{number:02d}"
        folder.mkdir(parents=True)
        for frame, jpeg in enumerate(faces, 1):
            (folder / f"{frame:05d}.jpg").write_bytes(jpeg)
    return tmp_path / "source"


@pytest.fixture
def cluster():
    """A cluster of one node, which works too."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def works(node) -> bool:
    """Whether a node runs a task at this moment; Ray titles its workers for what they do."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any("ray::_make" in " ".join(child.cmdline()) for child in raylet.children(recursive=True))


def test_a_node_that_dies_changes_no_byte(source, cluster, tmp_path):
    store = tmp_path / "ray" / "store"
    doomed = cluster.add_node(num_cpus=1)
    over, killed = threading.Event(), threading.Event()

    def kill_in_the_middle():
        while not over.wait(0.01):
            if any((store / LOG).glob("*.json")) and works(doomed):
                cluster.remove_node(doomed, allow_graceful=False)
                killed.set()
                return

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    try:
        run(Config(source=[str(source)], out=store, crops=True, framing="unknown", ray=cluster.address))
    finally:
        over.set()
        killer.join()
    assert killed.is_set()
    run(Config(source=[str(source)], out=tmp_path / "one" / "store", crops=True, framing="unknown", workers=1))
    assert content(store) == content(tmp_path / "one" / "store")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_machine_that_works_checks_its_gpu(source, cluster, tmp_path):
    pytest.importorskip("facenet_pytorch")
    cluster.add_node(num_cpus=1, num_gpus=1)  # it says so
    with pytest.raises(UserError, match="--device cuda cannot be used"):
        run(Config(source=[str(source)], out=tmp_path / "store", ray=cluster.address, device="cuda"))


def test_refusals(source, tmp_path):
    with pytest.raises(UserError, match="--device cuda:1: with --ray, give cpu or cuda"):
        run(Config(source=[str(source)], out=tmp_path / "store", ray="auto", device="cuda:1"))
    with pytest.raises(UserError, match="--workers"):
        run(Config(source=[str(source)], out=tmp_path / "store", crops=True, ray="auto", workers=2))
    with pytest.raises(UserError, match="--ray auto: no cluster answers"):
        run(Config(source=[str(source)], out=tmp_path / "store", crops=True, framing="unknown", ray="auto"))
    assert not (tmp_path / "store").exists()

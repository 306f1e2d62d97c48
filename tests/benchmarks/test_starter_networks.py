"""The networks for the starter weights, each trained for a moment, on drawn faces in place of the data sets."""

import pytest

from benchmarks.starter_networks import NETWORKS, Networks, main
from checkpoints.artifact import read_json
from starter import Starter
from starter_steps import find_faces, write_labels
from tests.drawn_data import write_data, write_votes


def test_every_network_is_scored_on_faces_that_none_saw(tmp_path, capsys):
    pytest.importorskip("facenet_pytorch")
    data = tmp_path / "data"
    data.mkdir()
    write_data(data)
    (data / "utkface").mkdir()
    write_votes(data / "utkface" / "train.parquet", [44, *range(70, 76)])  # the first is a validation face
    made = Starter(data=data, out=tmp_path / "starter", workers=1)
    find_faces(made)
    write_labels(made)
    options = {"data": data, "starter": made.out, "out": tmp_path / "out", "steps": 2, "epochs": 1.0}
    result = main(Networks(**options, seeds=(0,), result=tmp_path / "result.json"))
    assert result["scores"].keys() == set(NETWORKS)
    assert read_json(tmp_path / "result.json")["scores"]["resnet_scratch"]["muxspace_val"]["accuracy"]["seeds"]
    kept_out = set((tmp_path / "out" / "kept_out.txt").read_text().split())
    stores = {part["store"]: part for part in read_json(tmp_path / "out" / "stage_1" / "finished.json")["stores"]}
    assert stores["ferplus"]["excluded"] >= 7  # what is found of the eight, and near-duplicates
    assert stores["muxspace"]["excluded"] == 4 and stores["utkface"]["excluded"] == 1
    assert {f"validation_{number:07d}" for number in range(8)} <= kept_out
    assert {f"person_{seed}" for seed in range(54, 58)} <= kept_out  # muxspace's val
    assert "train_0000003" in kept_out  # a near-duplicate in FER+, whose first validation face it is
    for network in NETWORKS:
        scores = read_json(tmp_path / "out" / f"{network}_0" / "scores.json")
        assert 5 <= scores["ferplus_validation"]["frames"] <= 8 and scores["muxspace_val"]["frames"] == 4
    capsys.readouterr()
    assert main(Networks(**options, seeds=(0,)))["scores"] == result["scores"]  # nothing is trained again

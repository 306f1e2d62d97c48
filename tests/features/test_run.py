"""The extraction job: right rows, resuming, stale features, several processes, refusals."""

import io
import json
import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tqdm import tqdm

from checkpoints.artifact import write_sealed
from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from checkpoints.framing import ARCFACE, OURS, UNKNOWN, Framing
from checkpoints.network import Encoder, EncoderConfig
from features.cache import FeatureCache
from features.embed import Embedder, with_pooling
from features.import_features import ImportFeatures
from features.import_features import main as import_features
from features.job import Cache, Job, share
from features.run import Extract, main
from finetune.classifier import Classifier, trainable
from preprocessing.faces import FacesStore, Sequence
from preprocessing.views import cut
from preprocessing.write_faces import finish_store, write_shard
from temporal.caches import head_inputs
from tests import processes
from tests.finetune.corpus import LATE, make_encoder, make_store, rows_of
from wildaffect.training.images import decode, resize
from wildaffect.training.meter import count_flops


def settings(corpus, out, **changes):
    chosen = {"batch_size": 7, "workers": 0, "precision": "fp32"} | changes
    return Extract(encoder=str(corpus.encoder), faces=corpus.faces, out=out, **chosen)


def content(cache):
    return {file.name: file.read_bytes() for file in cache.iterdir() if file.suffix != ".html"}


@pytest.fixture(scope="module")
def cache(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("cache") / "full"
    main(settings(corpus, out))
    return out


def test_the_header_says_whose_labels_taught_and_chose_the_encoder(corpus, tmp_path, capsys):
    """And a header that does not, or says otherwise, is written again, without extracting anything."""
    place = make_encoder(tmp_path / "encoder")
    header = json.loads((place / "config.json").read_text())
    header["provenance"] |= {"labelled_videos": {"expr": ["t"]}, "chosen_on": {"expr": ["c"]}}
    write_sealed(place / "config.json", header)
    config = replace(settings(corpus, tmp_path / "out"), encoder=str(place))
    main(config)
    assert FeatureCache(config.out).trained_on == {"expr": ["t"]}
    assert FeatureCache(config.out).chosen_on == {"expr": ["c"]}
    before = content(config.out)
    for wrong in (None, {"expr": []}):
        old = json.loads((config.out / "features.json").read_text())
        old["chosen_on"] = wrong
        write_sealed(config.out / "features.json", old)
        times = {file: file.stat().st_mtime_ns for file in config.out.glob("*.safetensors")}
        main(config)
        assert content(config.out) == before
        assert times == {file: file.stat().st_mtime_ns for file in config.out.glob("*.safetensors")}
    damaged = config.out / "features.json"
    damaged.write_text(damaged.read_text().replace("features/run.py", "features/rum.py"))
    main(config)
    assert content(config.out) == before


def test_each_row_is_the_feature_of_its_own_picture(cache, corpus):
    """Batches of 7 over sequences of 12 and 8: every border falls inside a batch."""
    store, encoder, features = FacesStore(corpus.faces), load_encoder(corpus.encoder), FeatureCache(cache)
    assert features.ids == sorted(sequence.id for sequence in store.sequences())
    for sequence in store.sequences():
        found = features.read(sequence.id)
        rows = np.arange(sequence.start, sequence.start + sequence.length)
        assert np.array_equal(found.valid, store.valid[rows])
        assert np.array_equal(found.time_s, store.time_s[rows])
        assert found.first_frame == sequence.first_frame == (LATE if sequence.subject else 1)
        for row in rows[store.valid[rows]]:
            with torch.inference_mode():
                wanted = encoder(resize(decode(store.jpeg(row)), 32)[None])[0]
            np.testing.assert_allclose(found.features[row - sequence.start], wanted.numpy(), atol=2e-3)


def test_header(cache, corpus):
    found = FeatureCache(cache)
    encoder = load_encoder(corpus.encoder)
    assert found.feature_id == Embedder(encoder).feature_id
    assert found.header["encoder"] == os.path.relpath(corpus.encoder, cache)
    assert found.header["parents"]["encoder"] == encoder.fingerprint
    assert found.header["synthetic"] is True and found.dim == 24


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 500}, {"workers": 1}])
def test_batches_and_workers_do_not_matter(cache, corpus, tmp_path, changes):
    main(settings(corpus, tmp_path / "other", **changes))
    one, two = FeatureCache(cache), FeatureCache(tmp_path / "other")
    for id in one.ids:
        np.testing.assert_allclose(one.read(id).features, two.read(id).features, atol=2e-3)


def test_several_views_in_one_pass_are_those_of_several_passes(corpus, cache, tmp_path):
    main(settings(corpus, tmp_path / "both", view=("full", "eyes_mouth")))
    main(settings(corpus, tmp_path / "alone", view=("eyes_mouth",)))
    assert content(tmp_path / "both" / "eyes_mouth").keys() == content(tmp_path / "alone").keys()
    both, alone = FeatureCache(tmp_path / "both" / "eyes_mouth"), FeatureCache(tmp_path / "alone")
    assert both.feature_id == alone.feature_id != FeatureCache(cache).feature_id
    for id in alone.ids:
        assert np.array_equal(both.read(id).features, alone.read(id).features)
    assert np.array_equal(
        FeatureCache(tmp_path / "both" / "full").read("val0").features, FeatureCache(cache).read("val0").features
    )


def test_flip_averages_both_sides(corpus):
    encoder = load_encoder(corpus.encoder)
    images = torch.randint(0, 255, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        both = Embedder(encoder, flip=True)(images)
        torch.testing.assert_close(both, Embedder(encoder, flip=True)(images.flip(-1)))
        torch.testing.assert_close(both, (encoder(images) + encoder(images.flip(-1))) / 2)
    assert Embedder(encoder, flip=True).feature_id != Embedder(encoder).feature_id


def test_second_run_does_nothing(cache, corpus, capsys):
    times = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert main(settings(corpus, cache))["extracted"] == 0
    assert "is up to date" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == times


def test_interrupted_at_any_point_ends_the_same(cache, corpus, tmp_path, monkeypatch):
    from features import job

    for survivors in (0, 3, 9):
        out = tmp_path / str(survivors)
        write, written = job.write_features, []

        def die(*arguments, written=written, survivors=survivors, write=write, **named):
            if len(written) == survivors:
                raise KeyboardInterrupt
            written.append(named["features"])
            write(*arguments, **named)

        monkeypatch.setattr(job, "write_features", die)
        with pytest.raises(KeyboardInterrupt):
            main(settings(corpus, out))
        monkeypatch.undo()
        with pytest.raises(UserError, match=r"no complete feature cache|does not exist"):
            FeatureCache(out)
        assert main(settings(corpus, out))["up_to_date"] == survivors
        assert content(out) == content(cache)


def command(corpus, out):
    words = ["features/run.py", "--encoder", corpus.encoder, "--faces", corpus.faces, "--out", out]
    return [*words, "--workers", "0", "--precision", "fp32"]


def test_killed_process_ends_the_same(cache, corpus, tmp_path):
    out = tmp_path / "cache"
    process = processes.start(*command(corpus, out), "--batch-size", "7")
    while process.poll() is None and not list(out.glob("*.safetensors")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "features.json").exists()  # it really was killed on its way
    main(settings(corpus, out))
    assert content(out) == content(cache)


def test_two_processes_share_the_videos(cache, corpus, tmp_path):
    out = tmp_path / "cache"
    assert "10 sequences with 106 faces extracted" in processes.run_ranks(*command(corpus, out))
    assert (out / "features.json").read_bytes() == (cache / "features.json").read_bytes()
    one, two = FeatureCache(cache), FeatureCache(out)
    for id in one.ids:
        np.testing.assert_allclose(one.read(id).features, two.read(id).features, atol=2e-3)


def test_stale_sequences_are_redone_and_named(corpus, tmp_path, capsys):
    sequences = {"a": 6, "b": 7, "c": 5, "d": 5}
    faces = make_store(tmp_path / "faces", sequences)
    local = corpus._replace(faces=faces)
    out = tmp_path / "cache"
    main(settings(local, out))
    # One video's pictures change, one goes, one is new; a file is damaged.
    write_shard(faces, "b", rows_of("b", 7, seed=99))
    write_shard(faces, "e", rows_of("e", 6))
    (faces / "data" / "d.parquet").unlink()
    shutil.rmtree(faces / ".arrow", ignore_errors=True)
    finish_store(faces, made_by="test", config={}, image_size=40, problems=[], synthetic=True)
    (out / "c.safetensors").write_bytes(b"damaged")
    capsys.readouterr()
    summary = main(settings(local, out))
    said = capsys.readouterr().out
    assert (summary["extracted"], summary["up_to_date"]) == (3, 1)
    assert "b is made from other faces" in said
    assert "extracted again: " in said and "c.safetensors" in said
    assert "deleted" in said and "d.safetensors" in said
    main(settings(local, tmp_path / "fresh"))
    assert content(out) == content(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "another encoder, view or framing"),
        ({"view": ("mouth",)}, "encoder, view or framing"),
        ({"precision": "bf16"}, "precision"),
    ],
)
def test_other_encoder_view_or_precision_is_stale(corpus, tmp_path, capsys, changes, reason):
    """An encoder that differs only in its normalisation is another encoder."""
    faces = make_store(tmp_path / "faces", {"a": 6})
    local = corpus._replace(faces=faces)
    main(settings(local, tmp_path / "cache"))
    if not changes:
        local = local._replace(encoder=make_encoder(tmp_path / "other", std=(0.25, 0.25, 0.25)))
    main(settings(local, tmp_path / "cache", **changes))
    assert reason in capsys.readouterr().out


def test_another_framing_is_another_feature(corpus, tmp_path, capsys):
    """Even from the same pictures: the framing is in the header, in the id and in a head's inputs."""
    faces = make_store(tmp_path / "faces", {"a": 6})
    found = {}
    for framing in (UNKNOWN, ARCFACE, OURS):
        finish_store(faces, made_by="test", config={}, image_size=40, problems=[], framing=framing)
        main(settings(corpus._replace(faces=faces), tmp_path / "cache"))
        cache = FeatureCache(tmp_path / "cache")
        found[framing.name] = cache.feature_id
        assert cache.header["config"]["framing"] == framing.as_dict()
        (item,) = head_inputs([cache], tmp_path / "head")
        assert Framing.from_dict(item.framing) == framing
        embedder = Embedder(load_encoder(corpus.encoder), framing=framing)
        assert item.feature_id == embedder.feature_id == cache.feature_id
    assert len(set(found.values())) == 3
    assert "another encoder, view or framing" in capsys.readouterr().out


def test_video_without_any_face(corpus, tmp_path):
    rows = [row | {"image": None} for row in rows_of("a", 5)]
    write_shard(tmp_path / "faces", "a", rows)
    write_shard(tmp_path / "faces", "b", rows_of("b", 6))
    write_shard(tmp_path / "faces", "c", [row | {"video": "c"} for row in rows])
    finish_store(tmp_path / "faces", made_by="test", config={}, image_size=40, problems=[])
    main(settings(corpus._replace(faces=tmp_path / "faces"), tmp_path / "cache"))
    found = FeatureCache(tmp_path / "cache").read("a")
    assert not found.valid.any() and not found.features.any() and len(found) == 5
    assert FeatureCache(tmp_path / "cache").read("b").valid.sum() == 5


def test_picture_that_cannot_be_decoded_is_flagged(corpus, tmp_path, capsys):
    rows = rows_of("a", 6)
    rows[2]["image"] = b"\xff\xd8 no picture"
    write_shard(tmp_path / "faces", "a", rows)
    finish_store(tmp_path / "faces", made_by="test", config={}, image_size=40, problems=[])
    summary = main(settings(corpus._replace(faces=tmp_path / "faces"), tmp_path / "cache"))
    assert summary["unreadable"] == 1
    assert FeatureCache(tmp_path / "cache").read("a").valid.tolist() == [True, True, False, True, False, True]
    assert "video a, frame 3" in capsys.readouterr().out


def test_pooling(corpus):
    encoder = load_encoder(corpus.encoder)
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        tokens = encoder.backbone.forward_features(encoder.normalise(images))
        both = with_pooling(encoder, "cls_mean")
        torch.testing.assert_close(both(images), torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))
    fingerprints = {with_pooling(encoder, pooling).fingerprint for pooling in ("cls", "mean", "cls_mean")}
    assert len(fingerprints) == 3 and encoder.fingerprint in fingerprints


def test_network_without_tokens_refuses_token_pooling(tmp_path):
    from checkpoints.encoder import Encoder, EncoderConfig

    net = Encoder(EncoderConfig("resnet10t", 32, pooling="model")).eval()
    assert net(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, net.dim)
    with pytest.raises(UserError, match="has no tokens to pool by 'cls'"):
        with_pooling(net, "cls")


def test_refuses_a_directory_of_something_else(corpus, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"thesis.tex.*features/run.py did not write"):
        main(settings(corpus, tmp_path))
    with pytest.raises(UserError, match="expected a faces store"):
        main(replace(settings(corpus, tmp_path / "cache"), faces=tmp_path / "nothing"))


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60), st.integers(1, 8))
def test_sharing_out(lengths, world):
    sequences = [Sequence(f"v{n}", "", sum(lengths[:n]), length, 1) for n, length in enumerate(lengths)]
    shares = [share(sequences, rank, world) for rank in range(world)]
    assert sorted(s.start for part in shares for s in part) == [s.start for s in sequences]
    loads = [sum(s.length for s in part) for part in shares]
    assert max(loads) - min(loads) <= max(lengths)


def test_cut_is_what_the_encoder_sees(corpus, tmp_path):
    main(settings(corpus, tmp_path / "eyes", view=("eyes",)))
    store, encoder = FacesStore(corpus.faces), load_encoder(corpus.encoder)
    with torch.inference_mode():
        wanted = encoder(resize(cut(decode(store.jpeg(0)), "eyes"), 32)[None])[0]
    id = store.sequences()[0].id
    np.testing.assert_allclose(FeatureCache(tmp_path / "eyes").read(id).features[0], wanted.numpy(), atol=2e-3)


def test_nothing_of_others_is_deleted(cache, corpus, tmp_path):
    """A user's weights, an imported cache, and features of other faces are kept."""
    weights = tmp_path / "weights"
    weights.mkdir()
    save_file({"w": np.ones(3)}, weights / "precious.safetensors")
    with pytest.raises(UserError, match=r"holds 'precious.safetensors', which features/run.py did not write"):
        main(settings(corpus, weights))
    np.save(tmp_path / "val0.npy", np.ones((12, 3)))
    imported = tmp_path / "imported"
    import_features(ImportFeatures(source=tmp_path, faces=corpus.faces, name="a", out=imported))
    with pytest.raises(UserError, match=r"is a feature cache that .*import_features.py made"):
        main(settings(corpus, imported))
    other = make_store(tmp_path / "faces", {"x": 10})
    with pytest.raises(UserError, match=r"holds features of other faces, such as 'train0', and none of"):
        main(replace(settings(corpus, cache), faces=other))
    assert (weights / "precious.safetensors").exists()
    assert FeatureCache(imported).ids == ["val0"] and "train0" in FeatureCache(cache)


def test_a_damaged_file_is_made_again(cache, corpus, tmp_path, capsys):
    out = tmp_path / "cache"
    shutil.copytree(cache, out)
    whole = (out / "val0.safetensors").read_bytes()
    (out / "val0.safetensors").write_bytes(whole[:-20])
    assert main(settings(corpus, out))["extracted"] == 1
    assert "val0.safetensors" in capsys.readouterr().out.split("extracted again: ")[1]
    assert (out / "val0.safetensors").read_bytes() == whole


def test_the_report_can_be_had_later(cache, corpus, tmp_path):
    out = tmp_path / "cache"
    shutil.copytree(cache, out)
    (out / "report.html").unlink()
    main(settings(corpus, out))
    assert "coloured by video" in (out / "report.html").read_text()
    main(settings(corpus, out, labels=corpus.labels))
    assert "coloured by expression label" in (out / "report.html").read_text()


def test_progress_goes_on_within_a_video(corpus, tmp_path):
    """The bar counts every frame that is done; frames that were up to date do not count towards the rate."""
    store, encoder = FacesStore(corpus.faces), load_encoder(corpus.encoder)
    made = Cache(tmp_path / "c", Embedder(encoder), store, encoder_path="e", precision="fp32")
    made.open()
    with tqdm(total=len(store), disable=False, file=io.StringIO()) as bar:
        job = Job(store, store.sequences(), [made], 4, bar)
        stands = []
        for rows in job.batches():
            job.take(np.zeros((len(rows), 1, encoder.dim)), np.ones(len(rows), bool))
            stands.append(bar.n)
        assert (
            bar.n == len(store) and np.diff(stands).max() <= 4 + 2
        )  # frames without a face come with their video's end
    with tqdm(total=len(store), disable=False, file=io.StringIO()) as bar:
        assert not list(Job(store, store.sequences(), [made], 4, bar).batches())
        assert bar.n == bar.initial == len(store)


def test_networks_without_a_class_token(tmp_path):
    """As in SigLIP: features are pooled by the model's own attention, and the first token is a patch."""
    kwargs = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2, "class_token": False, "global_pool": "map"}
    encoder = Encoder(EncoderConfig("vit_tiny_patch16_224", 32, kwargs, pooling="model"))
    with pytest.raises(UserError, match="has no class token"):
        with_pooling(encoder, "cls")
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    for pooling in ("average", "grid", "parent"):
        model = Classifier(trainable(encoder, pooling=pooling, drop_path=0.1, patch_drop=0.0))
        assert model(images).shape == (2, 8) and count_flops(model, images) > 0


def test_networks_without_stochastic_depth():
    encoder = Encoder(EncoderConfig("vgg11", 64, pooling="model"))
    with pytest.raises(UserError, match="vgg11 does not support stochastic depth: use --drop-path 0"):
        trainable(encoder, pooling="average", drop_path=0.1, patch_drop=0.0)

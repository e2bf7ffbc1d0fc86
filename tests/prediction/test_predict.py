import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from selftrain.corpus.ingest import ingest
from selftrain.networks.export import export_model
from selftrain.networks.models import create_model
from selftrain.params.predict import PredictConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import sha256_of
from selftrain.plumbing.locks import sole_writer
from selftrain.prediction.predict import predict
from selftrain.tables.manifest import read_manifest
from selftrain.tables.predictions import iter_predictions, made_from
from selftrain.tables.records import RunRecord
from tests.conftest import write_images
from tests.prediction.predicted import CLASSES, HARDWARE, make_model, predict_noised, project, run

__all__ = ["project"]


def test_rows_are_the_manifests_and_values_are_plain_timms(project: Path, photos: Path) -> None:
    run(project)
    manifest = read_manifest(project / "corpus" / "unlabeled", ["key", "source"]).to_pylist()
    parts = [part for _, part in iter_predictions(project / "out" / "unlabeled")]
    assert np.concatenate([part.keys for part in parts]).tolist() == [row["key"] for row in manifest]
    model = timm.create_model(f"local-dir:{project / 'model'}", pretrained=True).eval()
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    rows = np.concatenate([part.log_probs for part in parts])
    for row, found in zip(manifest, rows, strict=True):
        image = Image.open(photos / row["source"])
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        square = image.resize((32, 32), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        inputs = (torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255 - mean) / std
        expected = model(inputs[None]).log_softmax(dim=1)[0].detach()
        torch.testing.assert_close(torch.from_numpy(found).float(), expected, atol=2e-3, rtol=2e-3)
    for part in parts:
        assert part.labels.tolist() == part.log_probs.argmax(1).tolist()
        np.testing.assert_allclose(part.confidences, np.exp(part.log_probs.max(1).astype(np.float32)), rtol=2e-3)


def test_a_part_with_one_flipped_bit_is_made_again(project: Path) -> None:
    first = run(project)
    part = project / "out" / "test" / "part-00000001.parquet"
    whole = part.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    again = run(project)
    assert {name for name in first if first[name] != again.get(name)} == {"test/part-00000001.parquet"}
    assert part.read_bytes() == whole


def test_again_writes_nothing_and_a_missing_part_is_made_alone(project: Path) -> None:
    first = run(project)
    assert len(first) == 2 + 3
    assert run(project) == first
    (project / "out" / "test" / "part-00000001.parquet").unlink()
    (project / "out" / "test" / "part-00000002.parquet").write_bytes(b"half")
    (project / "out" / "test" / ".tmp-1-part-00000000.parquet").write_bytes(b"half")
    again = run(project)
    assert {name for name in first if first[name] != again.get(name)} <= {
        "test/part-00000001.parquet", "test/part-00000002.parquet",
    }  # fmt: skip
    assert again.keys() == first.keys()
    assert not list((project / "out" / "test").glob(".tmp*"))


def test_a_grown_pool_costs_its_growth_and_a_removed_shard_its_part(project: Path, photos: Path, ingest_config) -> None:  # type: ignore[no-untyped-def]
    first = run(project)
    write_images(photos / "pool" / "more", 3, 88)
    for path in sorted((photos / "pool").glob("*.png"))[:5]:
        path.unlink()
    ingest(ingest_config(), 0, project / "corpus")
    second = run(project)
    assert second.keys() - first.keys() == {"unlabeled/part-00000002.parquet"}
    assert first.keys() - second.keys() == {"unlabeled/part-00000000.parquet"}
    assert all(second[name] == first[name] for name in second.keys() & first.keys())


def test_another_model_makes_everything_anew(project: Path) -> None:
    first = run(project, "test")
    make_model(project / "model", seed=1)
    second = run(project, "test")
    assert all(first[name] != second[name] for name in first)


def test_other_classes_are_an_error(project: Path) -> None:
    make_model(project / "model", seed=0, classes=["cat", "dog", "emu"])
    with pytest.raises(UserError, match="was trained on other classes"):
        run(project)


@pytest.mark.parametrize("noise", ["augmentation", "stochastic_depth", "dropout"])
def test_a_noised_teacher_labels_the_pool_otherwise_and_the_held_out_images_as_ever(project: Path, noise: str) -> None:
    # As trained weights are: timm starts residual branches at zero, where stochastic depth has nothing to drop.
    model = create_model("test_resnet", len(CLASSES), 32)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(part.weight)
    export_model(model, project / "model", classes=CLASSES, image_size=32, crop_fraction=1.0)
    with pytest.raises(UserError, match=r"run\.json: no such file"):
        predict_noised(project, (noise,))
    strengths = {"dropout": 0.5, "stochastic_depth": 0.5, "randaugment_magnitude": 15, "randaugment_ops": 4}
    (project / "model" / "run.json").write_text(json.dumps({"run": "teacher", "train": {"noise": strengths}}))
    predict_noised(project, ())
    predict_noised(project, (noise,), out="noised")
    predict_noised(project, (noise,), out="again")
    predict_noised(project, (noise,), seed=1, out="other")

    def rows(out: str, split: str) -> np.ndarray:
        return np.concatenate([part.log_probs for _, part in iter_predictions(project / out / split)])

    assert np.array_equal(rows("noised", "test"), rows("out", "test"))
    assert np.array_equal(rows("noised", "unlabeled"), rows("again", "unlabeled"))
    assert not np.array_equal(rows("noised", "unlabeled"), rows("other", "unlabeled"))
    assert not np.array_equal(rows("noised", "unlabeled"), rows("out", "unlabeled"))
    before = {path: os.stat(path).st_mtime_ns for path in (project / "noised").rglob("*.parquet")}
    predict_noised(project, (noise,), out="noised")
    assert {path: os.stat(path).st_mtime_ns for path in (project / "noised").rglob("*.parquet")} == before


def test_two_processes_share_the_parts_and_make_each_once(project: Path, photos: Path) -> None:
    config, splits = PredictConfig(), ["unlabeled", "test"]

    def run_rank(out: str, rank: int, world_size: int) -> dict[str, int]:
        folder = project / out
        predict(project / "model", project / "corpus", splits, folder, config, 0, HARDWARE, rank, world_size)
        return {str(path.relative_to(folder)): os.stat(path).st_mtime_ns for path in folder.rglob("*.parquet")}

    whole = run_rank("whole", 0, 1)
    first = run_rank("shared", 0, 2)
    both = run_rank("shared", 1, 2)
    assert 0 < len(first) < len(both)
    assert both.keys() == whole.keys()
    assert first.items() <= both.items()
    for path in whole:
        assert (project / "whole" / path).read_bytes() == (project / "shared" / path).read_bytes()


def test_a_part_that_another_process_writes_is_waited_for_and_not_made_again(project: Path) -> None:
    from threading import Thread

    run(project)
    part = project / "out" / "unlabeled" / "part-00000000.parquet"
    content = part.read_bytes()
    part.unlink()
    with sole_writer(part):
        waiting = Thread(target=predict_noised, args=(project, ()))
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
        assert not part.exists()
        part.write_bytes(content)  # what the other process makes
        written = os.stat(part).st_mtime_ns
    waiting.join(120)
    assert not waiting.is_alive()
    assert os.stat(part).st_mtime_ns == written


def test_weights_with_one_flipped_bit_label_nothing(project: Path) -> None:
    weights = project / "model" / "model.safetensors"
    RunRecord(run="model", weights=sha256_of(weights)).write(project / "model" / "run.json")
    run(project)
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    shutil.rmtree(project / "out")
    with pytest.raises(UserError, match=r"model.safetensors: not the weights that .*run.json tells of; restore"):
        run(project)
    assert not list((project / "out").rglob("*.parquet"))


def test_the_pools_table_keeps_the_likeliest_classes_and_the_others_all(project: Path) -> None:
    def made(top_k: int | None, split: str) -> tuple[list[str], np.ndarray]:
        config = PredictConfig(top_k=top_k)
        predict(project / "model", project / "corpus", ["unlabeled", "test"], project / "out", config, 0, HARDWARE)
        parts = [part for _, part in iter_predictions(project / "out" / split)]
        stamps = [
            made_from(project / "out" / split, shard) or "" for shard, _ in iter_predictions(project / "out" / split)
        ]
        return stamps, np.concatenate([part.log_probs for part in parts])

    stamps, whole = made(None, "unlabeled")
    of_test = made(None, "test")
    again, kept = made(1, "unlabeled")
    assert not set(again) & set(stamps), "another table"
    best = whole.argmax(axis=1)
    rows = np.arange(len(whole))
    assert np.array_equal(kept[rows, best], whole[rows, best])
    others = (1 - np.exp(whole[rows, best].astype(float))) / (whole.shape[1] - 1)
    for label in range(whole.shape[1]):
        np.testing.assert_allclose(np.exp(kept[best != label, label].astype(float)), others[best != label], atol=2e-3)
    for found, before in zip(made(1, "test"), of_test, strict=True):
        assert np.array_equal(found, before)
    assert made(None, "unlabeled")[0] == stamps


def test_numbers_beyond_float16_are_clamped_and_counted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(project / "model" / "model.safetensors")
    weights["fc.weight"] *= 1e7
    save_file(weights, project / "model" / "model.safetensors")
    config = PredictConfig(embeddings=True)
    predict(project / "model", project / "corpus", ["unlabeled"], project / "out", config, 0, HARDWARE)
    rows = np.concatenate([part.log_probs for _, part in iter_predictions(project / "out" / "unlabeled")])
    assert np.isfinite(rows).all()
    clamped = int((rows == -65504).sum())
    assert clamped > 10
    assert f"out/unlabeled: {clamped:,} numbers beyond float16 became ±65,504, its largest" in capsys.readouterr().out

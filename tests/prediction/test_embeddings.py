import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from selftrain.images.index import load_index
from selftrain.images.loading import ImageLoader
from selftrain.images.transforms import clean
from selftrain.networks.models import load_model, to_input
from selftrain.params.predict import PredictConfig
from selftrain.plumbing.errors import UserError
from selftrain.prediction.predict import predict
from selftrain.tables.predictions import iter_predictions
from tests.prediction.predicted import HARDWARE, project, run

__all__ = ["project"]


def test_embeddings_are_the_penultimate_layer_and_leave_the_predictions_as_they_are(project: Path) -> None:

    from selftrain.tables.embeddings import read_embeddings

    run(project)
    plain = {path.name: path.read_bytes() for path in (project / "out" / "unlabeled").glob("*.parquet")}

    def with_embeddings(wanted: bool) -> None:
        config = PredictConfig(embeddings=wanted)
        predict(project / "model", project / "corpus", ["unlabeled", "test"], project / "out", config, 0, HARDWARE)

    with_embeddings(True)
    assert {path.name: path.read_bytes() for path in (project / "out" / "unlabeled").glob("*.parquet")} == plain
    keys = np.concatenate([part.keys for _, part in iter_predictions(project / "out" / "unlabeled")])
    rows = np.concatenate([part.log_probs for _, part in iter_predictions(project / "out" / "unlabeled")])
    found = read_embeddings(project / "out" / "embeddings" / "unlabeled", set(keys.tolist()))
    np.testing.assert_array_equal(found.keys, keys)
    classifier = timm.create_model(f"local-dir:{project / 'model'}", pretrained=True).eval().get_classifier()
    logits = classifier(torch.from_numpy(found.vectors.astype(np.float32)))
    np.testing.assert_allclose(logits.log_softmax(1).detach().numpy(), rows, atol=0.01)
    some = read_embeddings(project / "out" / "embeddings" / "unlabeled", {int(keys[3])})
    np.testing.assert_array_equal(some.vectors, found.vectors[3:4])
    with pytest.raises(UserError, match="unlabeled: has no embedding of some images"):
        read_embeddings(project / "out" / "embeddings" / "unlabeled", {*keys.tolist(), 5})
    shutil.rmtree(project / "out" / "unlabeled")
    with_embeddings(True)
    assert {path.name: path.read_bytes() for path in (project / "out" / "unlabeled").glob("*.parquet")} == plain
    with_embeddings(False)
    assert not (project / "out" / "embeddings").exists()


@pytest.mark.parametrize("layer", [0, -2])
def test_embeddings_can_be_of_any_layer_and_change_no_prediction(project: Path, layer: int) -> None:
    from selftrain.tables.embeddings import read_embeddings

    found = {}
    for wanted in (None, layer):
        config = PredictConfig(embeddings=True, embeddings_layer=wanted)
        predict(project / "model", project / "corpus", ["unlabeled"], project / "out", config, 0, HARDWARE)
        parts = [part for _, part in iter_predictions(project / "out" / "unlabeled")]
        found[wanted] = np.concatenate([part.log_probs for part in parts])
    keys = np.concatenate([part.keys for part in parts])
    assert np.array_equal(found[None], found[layer])
    vectors = read_embeddings(project / "out" / "embeddings" / "unlabeled", set(keys.tolist())).vectors
    model, config_json = load_model(project / "model")
    index = load_index(project / "corpus" / "unlabeled")
    loader, cfg = ImageLoader(index), config_json["pretrained_cfg"]
    images = torch.from_numpy(np.stack([clean(loader.image(row), 32, 1.0) for row in range(len(index))]))
    inputs = to_input(images, cfg["mean"], cfg["std"], torch.device("cpu"))
    maps: dict[str, torch.Tensor] = {}
    module = model.get_submodule("act1" if layer == 0 else "layer3")
    module.register_forward_hook(lambda module, args, output: maps.update(seen=output))
    with torch.inference_mode():
        model.eval()(inputs)
    expected = maps["seen"].mean((2, 3)).numpy()
    np.testing.assert_allclose(vectors, expected, rtol=2e-3, atol=2e-3)


def test_a_layer_that_is_not_there_is_named(project: Path) -> None:
    config = PredictConfig(embeddings=True, embeddings_layer=7)
    with pytest.raises(UserError, match="predict.embeddings_layer: 7; this network has 5 feature maps, 0 to 4"):
        predict(project / "model", project / "corpus", ["test"], project / "out", config, 0, HARDWARE)

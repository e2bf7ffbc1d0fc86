"""A classifier fitted to a network's own features before the first step: all of a training, or where one starts."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from selftrain.images.clean_images import CleanImages, in_batches
from selftrain.images.index import ImageIndex
from selftrain.images.loading import ImageLoader
from selftrain.images.workers import in_order
from selftrain.learning.algorithm import Algorithm
from selftrain.learning.closed_form import FittedHead, FittedTo, Pool
from selftrain.networks.models import normalization, to_input
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import Hardware
from selftrain.plumbing.sections import Section
from selftrain.training.distributed import gathered
from selftrain.training.pseudo_labels import PseudoLabels

BATCH_SIZE = 64


def put_in_fitted_head(
    network: nn.Module,
    algorithm: type[Algorithm],
    parameters: Section,
    images: ImageIndex,
    pool: PseudoLabels | None,
    classes: list[str],
    config: TrainConfig,
    seed: int,
    hardware: Hardware,
) -> FittedHead:
    """Fit the network's classifier to its features of clean images by an algorithm without steps, and put it in.

    ``images`` are labeled; ``pool`` is what the algorithm's views ask for. Raises UserError for a class without labeled
    images, and for a network whose classifier is not linear.
    """
    counts = np.bincount(images.labels, minlength=len(classes))
    if not counts.all():
        raise UserError(f"train: the class '{classes[int(counts.argmin())]}' has no labeled image to fit a probe to")
    classifier = network.get_classifier() if hasattr(network, "get_classifier") else None  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear) or classifier.bias is None:
        raise UserError(f"train: '{config.model}' has no linear classifier to fit as a probe; take another model")
    features = features_of(network, images, config, hardware)
    of_pool = None
    if pool is not None:
        assert pool.soft_labels is not None
        weights = np.bincount(pool.epoch, minlength=len(pool.index)) * pool.weights
        pool_features = features_of(network, pool.index, config, hardware)
        of_pool = Pool(pool_features, pool.soft_labels[:], pool.known, weights, config.unlabeled_ratio)
    fitted = algorithm.fit(parameters, FittedTo(features, images.labels, len(classes), of_pool), seed)
    # Devices may differ in the last bit of a feature; all processes start from the first one's.
    head = gathered(fitted)[0]
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(head.weight))
        classifier.bias.copy_(torch.from_numpy(head.bias))
    return head


def features_of(network: nn.Module, images: ImageIndex, config: TrainConfig, hardware: Hardware) -> NDArray[np.float32]:
    """What the classifier gets of each image, clean and in eval mode, (N, D)."""
    batches = in_batches(np.arange(len(images), dtype=np.int64), BATCH_SIZE)
    squares = CleanImages(ImageLoader(images, hardware.caches), batches, config.image_size, config.crop_fraction)
    mean, std = normalization(network)
    network.eval().to(hardware.device).to(memory_format=torch.channels_last)
    found = []
    for batch in in_order(squares, range(len(batches)), hardware.workers if len(batches) > 8 else 0):
        # Not around the move to the device: weights that are moved in it cannot be trained any more.
        with torch.inference_mode(), hardware.autocast():
            maps = network.forward_features(to_input(batch, mean, std, hardware.device))  # type: ignore[operator]
            found.append(network.forward_head(maps, pre_logits=True).float().cpu())  # type: ignore[operator]
    network.train()
    return torch.cat(found).numpy()

from typing import Any

import pytest

from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.training.check import check_run, check_takes_weights
from tests.training.conftest import TINY

HERE = HardwareConfig()


def config(name: str, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(TINY | {"algorithm": {"name": name}, "unlabeled_ratio": 1} | changes)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (config("supervised", networks={"teacher": {}}), "supervised has no such network; it has the student alone"),
        (
            config("supervised", model="resnet18", unlabeled_ratio=0, batch_size=1, image_size=32),
            "'resnet18' cannot be trained on 1 images of 32 pixels at a time",
        ),
        (config("meta_pseudo_labels", networks={"techer": {}}), "did you mean 'teacher'"),
        (config("meta_pseudo_labels", networks={"teacher": {"model": "resnet19"}}), "timm knows no model 'resnet19'"),
        (config("meta_pseudo_labels", networks={"teacher": {"optimizer": "sdg"}}), "timm knows no optimizer 'sdg'"),
        (
            config("feature_distillation", networks={"projections": {"model": "resnet18"}}),
            "train.networks.projections.model: feature_distillation makes its projections itself",
        ),
        (
            config("meta_pseudo_labels", then={"more": {"steps": 2}}),
            "a later phase has the student's weights alone, and meta_pseudo_labels needs its teacher too",
        ),
        (
            config("distillation", resplit={"splits": ["labeled", "validation"], "validation": 0.2}),
            "train.resplit: the teacher's table of labeled images has none of other splits'",
        ),
        (
            config("supervised", noise={"on_device": True, "randaugment_policy": "meta_pseudo_labels"}),
            r"train.noise.on_device: the policy 'meta_pseudo_labels' mixes in a second image \(sample_pairing\)",
        ),
        (
            config("meta_pseudo_labels", grad_accum_steps=2),
            "p.train.grad_accum_steps: meta_pseudo_labels takes several gradients a step",
        ),
        (
            config(
                "meta_pseudo_labels",
                algorithm={
                    "name": "meta_pseudo_labels",
                    "feedback": "exact",
                    "feedback_at": "plain_step",
                    "labels": "soft",
                },
                activation_checkpointing=True,
            ),
            "p: train.activation_checkpointing: meta_pseudo_labels takes second derivatives with these parameters",
        ),
        (
            config("supervised", grad_accum_steps=3),
            "p.train.grad_accum_steps: 8 labeled images a step do not divide by 3",
        ),
        (
            TrainConfig.model_validate(
                TINY
                | {"unlabeled_ratio": 1, "grad_accum_steps": 2, "algorithm": {"name": "uda", "labeled_confidence": 0.9}}
            ),
            "p.train.grad_accum_steps: with these parameters uda divides its loss by a number of images",
        ),
        (config("mean_teacher"), "train.ema_decay: mean_teacher learns from the average"),
        (config("fixmatch", unlabeled_ratio=0), "p: train.unlabeled_ratio: is 0; fixmatch needs unlabeled images"),
        (config("supervised"), "p: train.unlabeled_ratio: supervised uses no unlabeled images; set it to 0"),
        (
            config("supervised", calibration="validation", model="repvit_m0_9", image_size=64, unlabeled_ratio=0),
            "p.train.calibration: the model's last layer is not linear",
        ),
        (config("supervised", optimizer="lookahead_adahessian", unlabeled_ratio=0), "needs second derivatives"),
        (config("supervised", model="resnet18.nope", unlabeled_ratio=0), "resnet18.nope"),
        (
            config("meta_pseudo_labels", algorithm={"name": "meta_pseudo_labels", "student_wait_steps": 99}, steps=99),
            "p.train.algorithm.student_wait_steps: the training ends before the student begins",
        ),
        (
            config("distillation", algorithm={"name": "distillation", "delay_steps": 99}, steps=99),
            "p.train.algorithm.delay_steps: the training ends before the student learns of its teacher",
        ),
        (
            config("reduced_meta_pseudo_labels", networks={"teacher": {"noise": {"dropout": 0.5}}}),
            "train.networks.teacher.noise: reduced_meta_pseudo_labels makes its teacher itself",
        ),
    ],
)
def test_what_does_not_fit_an_algorithm_is_told_before_anything_is_trained(made: TrainConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_run(made, True, "p", HERE)


def test_what_does_not_go_with_the_machine_is_told_too() -> None:
    compiled = HardwareConfig(compile=True)
    with pytest.raises(UserError, match="p: train.sync_batchnorm: compiled networks do not wait"):
        check_run(config("noisy_student", sync_batchnorm=True), True, "p", compiled)
    exact = {"name": "meta_pseudo_labels", "feedback": "exact", "labels": "soft"}
    for parameter, hardware in (("compile", compiled), ("fsdp", HardwareConfig(fsdp=True))):
        with pytest.raises(UserError, match=f"p: hardware.{parameter}: meta_pseudo_labels takes second derivatives"):
            check_run(config("meta_pseudo_labels", algorithm=exact), True, "p", hardware)
        check_run(config("meta_pseudo_labels"), True, "p", hardware)


def test_a_network_can_start_from_a_teacher_in_rounds_alone() -> None:
    made = config("meta_pseudo_labels", pool="labeled", networks={"teacher": {"init": "teacher"}})
    check_run(made, True, "p", HERE)
    with pytest.raises(UserError, match=r"p.train.networks.teacher.init: there is no teacher to start from"):
        check_run(made, False, "p", HERE)


def test_the_labeled_images_as_pool_need_no_round() -> None:
    check_run(config("meta_pseudo_labels", pool="labeled"), False, "p", HERE)
    with pytest.raises(UserError, match="needs unlabeled images; put the run under `rounds`"):
        check_run(config("meta_pseudo_labels"), False, "p", HERE)


def test_weights_that_an_algorithm_does_not_take_are_named() -> None:
    check_takes_weights(config("noisy_student"), "x")
    with pytest.raises(UserError, match="select.weight: fixmatch weighs all images alike; use `one`, or noisy_student"):
        check_takes_weights(config("fixmatch"), "params.yaml: rounds.student1.select.weight")

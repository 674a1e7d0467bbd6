"""Every experiment: what it asks, and what was published of it.

One literal table, for the report of all (`report`) and for running all (`all`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

Images = Literal["artists", "faces", "prado", "comics"]
"""The sets of images that the seeds are about."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of `published.json` that a whole run is.

    name: of the row.
    settings: those that make a run this row, by their flags.
    """

    name: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment.

    name: of its module.
    section: its place in the assignment or report; published figures are looked up by
        it. Empty: beyond them.
    title, question: in words.
    reference: what was published of it, in words; empty: nothing.
    images: the set it trains on; None: it needs none, or a checkpoint.
    variants: settings by which runs of it differ as answers; of each combination the
        report shows one run.
    rows: for an experiment whose run is one configuration, which published row it is.
    arguments: that it cannot do without.
    """

    name: str
    section: str
    title: str
    question: str
    reference: str = ""
    images: Images | None = None
    variants: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    arguments: str = ""


@dataclasses.dataclass(frozen=True)
class Chapter:
    """Experiments on one question.

    name: short, for links.
    """

    name: str
    title: str
    about: str
    experiments: tuple[Experiment, ...]


CHAPTERS = (
    Chapter(
        "part-1",
        "Part 1: who painted it",
        "451 paintings by 11 artists, 50×50 pixels: small convolutional networks, from "
        "the assignment's first one to the best that its questions lead to.",
        (
            Experiment(
                "receptive_field",
                "1.1",
                "Receptive field",
                "How much of the image does each layer see?",
                "Two convolutions of stride 1 see (f₁ + f₂ − 1)² pixels, 7×7 for 5 "
                "and 3.",
                variants=("model", "image-size"),
            ),
            Experiment(
                "part1_baseline",
                "1.2",
                "The first network",
                "What is the assignment's network, and how well does it do?",
                "Two convolutions and two dense layers, Adam at 1e-4, batches of 16, "
                "50 epochs; 91 validation images, one run.",
                "artists",
            ),
            Experiment(
                "part1_pooling",
                "1.3",
                "Max pooling",
                "What does max pooling change?",
                "Windows of 2 at stride 2 and at stride 1.",
                "artists",
            ),
            Experiment(
                "part1_regularization",
                "1.4",
                "Regularization",
                "What do dropout, optimizers, weight decay, early stopping and "
                "schedules change?",
                "Dropout of 0 to .5; Adam, SGD and RMSProp at one learning rate; "
                "patience of 2 to 100 epochs. Schedules brought no gain, small weight "
                "decay was best.",
                "artists",
            ),
            Experiment(
                "part1_architecture",
                "1.5",
                "Architecture",
                "Which kernel, stride, depth, padding and shape?",
                "10 epochs each. Kernel 3, stride 1 and depth 3 were best, padding "
                "made no difference; one dense layer beat several.",
                "artists",
            ),
            Experiment(
                "part1_tuning",
                "1.6",
                "Tuning",
                "Which batch size, learning rate and normalization, and how good is "
                "the best network?",
                "Batches of 8 to 128, rates of 1e-2 to 1e-5, 10 epochs; the best "
                "network of each report.",
                "artists",
            ),
            Experiment(
                "part1_robustness",
                "1.7",
                "Changed images",
                "What do changed images do to the best network?",
                "Validation accuracy under jitter, flips, rotation, blur and others, "
                "of other networks and with changes that PyTorch drew.",
                "artists",
            ),
        ),
    ),
    Chapter(
        "part-2",
        "Part 2: celebrity faces",
        "40 people of FaceScrub, 70 faces of each to learn from: a network on raw "
        "pixels, then one that knows ImageNet, and what they look at.",
        (
            Experiment(
                "part2_mlp",
                "2.1",
                "A multilayer perceptron",
                "How well does one hidden layer on raw pixels name faces?",
                "28×28 pixels, 300 hidden units, Adam at 1e-3; then with batch norm, "
                "dropout of .2 to .3 and L2 of .01 to .03.",
                "faces",
                variants=("hidden", "batch-norm"),
                rows=(
                    Row("300 hidden", {"hidden": 300, "batch-norm": False}),
                    Row("300 hidden, regularized", {"hidden": 300, "batch-norm": True}),
                ),
            ),
            Experiment(
                "part2_features",
                "2.2",
                "A fixed feature extractor",
                "How well do a frozen network's features tell faces apart?",
                "AlexNet: the output of its convolutions into 300 units with batch "
                "norm and dropout (Niaz); conv4 into two layers of 4096 (Gözpınar).",
                "faces",
                variants=("backbone", "layer", "hidden"),
                rows=(
                    Row("features, 300 hidden", {"layer": None, "hidden": [300]}),
                    Row("features, 300 hidden", {"layer": "features", "hidden": [300]}),
                    Row("conv4, 4096-4096", {"layer": "conv4"}),
                ),
            ),
            Experiment(
                "part2_weights",
                "2.3",
                "Weights as images",
                "What do hidden units look for?",
                "300 and 800 hidden units with L2: images of two units each, in "
                "which outlines of heads, eyes and mouths were seen.",
                "faces",
            ),
            Experiment(
                "part2_finetune",
                "2.4",
                "Fine-tuning",
                "How well does a network that knows ImageNet learn to name faces?",
                "AlexNet, of which only a new last layer is trained.",
                "faces",
                variants=("backbone", "method"),
                rows=(
                    Row("last layer only", {"method": "head"}),
                    Row("last layer only", {"method": "features"}),
                ),
            ),
            Experiment(
                "part2_saliency",
                "2.5",
                "Gradients as images",
                "Which pixels of a face speak for its name?",
                "Guided backpropagation for one face and its class: color, gray, "
                "positive and negative saliency.",
            ),
        ),
    ),
    Chapter(
        "prado",
        "Prado: five Spanish painters",
        "2,364 images of the Prado by Goya, Bayeu, Haes, Pizarro and Ribera, 224×224 "
        "pixels: three networks from scratch, and pretrained ones.",
        (
            Experiment(
                "prado_scratch",
                "Prado",
                "Three networks from scratch",
                "How well do VGG, ResNet and MobileNet tell five painters apart?",
                "About .95 on the test images for each of the three, 50 epochs.",
                "prado",
            ),
            Experiment(
                "prado_transfer",
                "Prado",
                "Transfer",
                "And pretrained networks, frozen, with a new last layer?",
                "25 epochs: VGG19 worst, ResNet50V2 and MobileNetV2 good, "
                "EfficientNetV2-B3 best, above .96.",
                "prado",
            ),
            Experiment(
                "prado_ablation",
                "Prado",
                "What each measure brings",
                "What do class weights, output biases, color augmentation, mirror "
                "images and a falling learning rate bring?",
                "All of them were used; none was left out for comparison.",
                "prado",
            ),
        ),
    ),
    Chapter(
        "comics",
        "Faces or comics",
        "20,000 images of faces and of comics drawn from them, 96×96 pixels, gray: "
        "two classes, many images.",
        (
            Experiment(
                "comics_baseline",
                "Comics",
                "Baseline",
                "How well does a VGG with batch norm tell faces from comics?",
                "VGG13 with batch norm, Adam at 1e-3, dropout .2, 12 epochs.",
                "comics",
            ),
            Experiment(
                "comics_tune",
                "Comics",
                "Tuning",
                "Which learning rate and dropout does Bayesian optimization find?",
                "Learning rate 1e-4 and dropout .1.",
                "comics",
                rows=(Row("tuned"),),
            ),
            Experiment(
                "comics_final",
                "Comics",
                "The tuned network",
                "How well does it do on the test images?",
                "Test accuracy .999.",
                "comics",
                rows=(Row("tuned"),),
            ),
        ),
    ),
    Chapter(
        "beyond",
        "Beyond the seeds",
        "What the assignment and the reports did not ask.",
        (
            Experiment(
                "part1_transfer",
                "",
                "Painters by transfer",
                "And a network that knows ImageNet, on the same paintings?",
                images="artists",
                variants=("backbone",),
            ),
            Experiment(
                "robustness",
                "",
                "Any network, changed images",
                "What does a trained network make of changed images?",
                variants=("checkpoint", "compare"),
                arguments="--checkpoint DIR",
            ),
            Experiment(
                "explain",
                "",
                "Any network, explained",
                "What in an image speaks for the name that a network gives it?",
                variants=("checkpoint", "method"),
                arguments="--checkpoint DIR IMAGE.jpg",
            ),
        ),
    ),
)

COMMANDS = (
    "all",
    "evaluate",
    "part1",
    "predict",
    "prepare_facescrub",
    "report",
    "tune",
)
"""Modules here that can be run and are no experiment of their own."""

EXPERIMENTS = {
    experiment.name: experiment
    for chapter in CHAPTERS
    for experiment in chapter.experiments
}

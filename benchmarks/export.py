"""Latency of one image: JAX, ONNX Runtime by our file and by torch's, torch itself."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import torch

from benchmarks.harness import Result, milliseconds, time_in_turn, times
from benchmarks.networks import check_same
from benchmarks.torch_twin import torch_twin
from jaxvision.export.model import IMAGE, onnx_model
from jaxvision.models import Network, create_model
from jaxvision.preprocessing import Preprocessing
from jaxvision.pretrained import load
from jaxvision.pretrained.golden import drawn_image

NETWORK = "efficientnet_lite0"

SIZES = (224, 160)

JAX, OURS, TORCH_FILE, EAGER = (
    "JAX",
    "ONNX Runtime, ours",
    "ONNX Runtime, torch's",
    "torch eager",
)

Logits = Callable[[], np.ndarray]


class Twin(torch.nn.Module):
    """The torch twin of a network, with its normalization: uint8 `[B, H, W, C]` ->
    logits and probabilities `[B, K]`."""

    def __init__(
        self, network: Network, variables: dict[str, Any], like: Preprocessing
    ) -> None:
        super().__init__()
        shape = (*like.size, like.channels)
        self.network = torch_twin(network, variables, shape)
        self.mean, self.std = torch.tensor(like.mean), torch.tensor(like.std)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = ((pixels.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        logits = self.network(images)
        return logits, torch.softmax(logits, -1)


def contestants(
    network: Network,
    variables: dict[str, Any],
    preprocessing: Preprocessing,
    image: np.ndarray,
) -> dict[str, Logits]:
    """What answers for one image `[H, W, C]` uint8, by name: from the array in memory
    to logits `[1, K]` in memory."""
    pixels = image[None]

    @jax.jit
    def forward(variables: Any, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = preprocessing.normalize(pixels)
        logits = jnp.asarray(network.apply(variables, x, train=False))
        return logits, jax.nn.softmax(logits)

    placed = jax.device_put(variables)
    ours = onnx_model(
        network, variables, preprocessing, batch=1, dtype="float32", metadata={}
    )
    twin = Twin(network, variables, preprocessing).eval()
    tensor = torch.from_numpy(pixels)

    def eager() -> np.ndarray:
        with torch.inference_mode():
            return twin(tensor)[0].numpy()

    return {
        JAX: lambda: np.asarray(forward(placed, pixels)[0]),
        OURS: _session(ours.SerializeToString(), pixels),
        TORCH_FILE: _session(_torch_file(twin, tensor), pixels),
        EAGER: eager,
    }


def _torch_file(twin: Twin, tensor: torch.Tensor) -> bytes:
    with warnings.catch_warnings():
        # Of torch, about itself.
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            twin, (tensor,), input_names=[IMAGE], dynamo=True, verbose=False
        )
    assert program is not None
    return program.model_proto.SerializeToString()


def _session(model: bytes, pixels: np.ndarray) -> Logits:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def call() -> np.ndarray:
        logits, _ = session.run(None, {IMAGE: pixels})
        return np.asarray(logits)

    return call


def run(*, quick: bool) -> Result:
    """EfficientNet-Lite0 with ImageNet's weights, at both sizes.

    quick: fewer rounds.
    """
    pretrained = load(NETWORK)
    source = pretrained.source
    network = create_model(source.model, source.num_classes)
    rows, figures = [], []
    for size in SIZES:
        image = drawn_image(size)
        preprocessing = Preprocessing(
            (size, size), mean=source.preprocessing.mean, std=source.preprocessing.std
        )
        answering = contestants(network, pretrained.variables, preprocessing, image)
        reference = answering[EAGER]()
        for name, call in answering.items():
            check_same(name, [call()], [reference])
        timings = time_in_turn(
            answering, budget_seconds=4.0 if quick else 30.0, least_rounds=5
        )
        ratio = timings[OURS].ratio_to(timings[TORCH_FILE])
        rows.append([size, *map(milliseconds, timings.values()), times(ratio)])
        seconds = {name: list(timing.seconds) for name, timing in timings.items()}
        figures.append({"network": NETWORK, "size": size, "seconds": seconds})
    return Result(
        "Exported networks",
        f"Milliseconds for one image, `{NETWORK}`, normalization included: median "
        "(quartiles). Logits were compared first.",
        ("size", JAX, OURS, TORCH_FILE, EAGER, "ours / torch's file"),
        rows,
        figures,
    )

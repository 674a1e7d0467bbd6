"""Data-parallel training: what it moves, what feeds it, how it should scale.

python -m benchmarks.scaling --measure    # times this machine into scaling.json, and:
python -m benchmarks.scaling              # docs/scaling.md and its figure from that

What moves over the wire is counted in the traced training step. The expected scaling is
a model, and its assumptions are the fields of `Cluster`: nothing overlaps, all devices
are equally quick, and an all-reduce costs what the best known algorithm has to move.
"""

import dataclasses
import io
import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var
from matplotlib.figure import Figure
from PIL import Image

from jaxvision.cli.flags import run
from jaxvision.data import decode
from jaxvision.data.demo import draw_image, faces
from jaxvision.data.loader import Batches
from jaxvision.metrics import make_cross_entropy
from jaxvision.models import create_model
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.plotting.style import BLUE, DPI, GRAY, GREEN, ORANGE, VERMILION
from jaxvision.preprocessing import Preprocessing
from jaxvision.storage import write_atomically, write_json
from jaxvision.traces import all_equations, called
from jaxvision.training.parallel import AXIS, jit_step
from jaxvision.training.state import TrainState, create_state, init_variables
from jaxvision.training.step import TrainStep, make_train_step
from jaxvision.typing import Batch

HERE = Path(__file__).parent
MEASURED = HERE / "scaling.json"
DOCUMENT = HERE.parent / "docs" / "scaling.md"
FIGURE = DOCUMENT.with_suffix(".png")
BEGIN, END = "<!-- tables: python -m benchmarks.scaling -->", "<!-- end of tables -->"

NETWORKS = {
    "vgg13_bn": ((96, 96, 1), 1),
    "efficientnet_lite0": ((224, 224, 3), 40),
    "resnet50_v2": ((224, 224, 3), 5),
    "alexnet": ((224, 224, 3), 40),
}
"""Height, width and channels of the images, and logits, as in its experiment."""

MODELED = "vgg13_bn"
"""The network that is timed, and whose scaling is shown."""

BATCH_SIZE = 32
"""Images a step on each device: the global batch grows with the devices."""

SPEEDS = (1, 10, 100, 1000)
"""How many times as quick as this machine the device of a row is."""

DEVICES = (1, 8, 16, 32, 64, 128, 256)

SOURCE_SIZE = 1024
"""Height and width of the JPEG whose decoding is timed."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What the model takes for granted of the machines."""

    devices_per_host: int = 8
    """Devices in a host; fewer devices than that are on one host."""
    device_gigabytes: float = 100.0
    """GB/s that a device sends to the next one in its host, while it receives as much.
    A modest figure: NVLink 4 is made for 450, PCIe 5 x16 for 63."""
    network_gigabytes: float = 12.5
    """GB/s that a host sends to the next one, while it receives as much: Ethernet of
    100 Gbit/s."""
    latency_microseconds: float = 20.0
    """From one host's memory to another's, for the shortest message."""


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What a training step has all devices add up.

    parameters: that are trained.
    calls: all-reduces that wait for each other; those that do not are joined to one.
    bytes: summed in all of them together.
    """

    parameters: int
    calls: int
    bytes: int

    def sent(self, devices: int) -> float:
        """Bytes that each device sends a step, in a ring: each receives as many."""
        return ring(devices) * self.bytes

    def seconds(self, devices: int, cluster: Cluster) -> float:
        """Time of the all-reduces of a step: first within each host, then between."""
        inside = min(devices, cluster.devices_per_host)
        hosts = math.ceil(devices / cluster.devices_per_host)
        moved = ring(inside) * self.bytes / (1e9 * cluster.device_gigabytes)
        moved += ring(hosts) * self.bytes / (1e9 * cluster.network_gigabytes)
        # Short ones go along a tree, up and down again.
        hops = 2 * math.ceil(math.log2(hosts))
        return moved + self.calls * hops * 1e-6 * cluster.latency_microseconds


def ring(members: int) -> float:
    """Shares of the data that each of this many sends in a ring all-reduce: the least
    there can be (Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002)."""
    return 2 * (members - 1) / members


def efficiency(
    step_seconds: float, traffic: Traffic, devices: int, cluster: Cluster
) -> float:
    """Images a second of this many devices, over those that each would do alone.

    step_seconds: of one device alone; every device has as many images as it has.
    """
    return step_seconds / (step_seconds + traffic.seconds(devices, cluster))


def count_traffic(name: str) -> Traffic:
    """Reads what a network's training step adds up off its trace."""
    step, state, batch = training_step(name, axis_name=AXIS, batch_size=2)
    traced = jax.make_jaxpr(step, axis_env=[(AXIS, 2)])(state, batch)
    sums = [eqn for eqn in all_equations(traced.jaxpr) if _is_sum(eqn)]
    moved: list[Any] = [var.aval for eqn in sums for var in eqn.outvars]
    begun = [0] * len(traced.jaxpr.invars)
    return Traffic(
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)),
        calls=max(_sums_before(traced.jaxpr, begun)),
        bytes=sum(math.prod(aval.shape) * aval.dtype.itemsize for aval in moved),
    )


def training_step(
    name: str, *, axis_name: str | None, batch_size: int
) -> tuple[TrainStep, TrainState, Batch]:
    """A step with Adam, and the shapes of what it takes."""
    shape, num_classes = NETWORKS[name]
    model = create_model(name, num_classes, bn_axis_name=axis_name)
    tx = make_optimizer(OptimConfig("adam"), steps_per_epoch=1, epochs=1)
    middle = (127.5,) * shape[2]
    preprocessing = Preprocessing(
        size=shape[:2], gray=shape[2] == 1, mean=middle, std=middle
    )
    step = make_train_step(
        model,
        tx,
        make_cross_entropy(),
        normalize=preprocessing.normalize,
        axis_name=axis_name,
    )

    def begin() -> TrainState:
        return create_state(init_variables(model, 0, shape), tx, seed=0)

    batch: Batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((batch_size,), jnp.float32),
    }
    return step, jax.eval_shape(begin), batch


def measure() -> dict[str, Any]:
    """Times this machine: a training step, and what prepares images, on one core."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "step_seconds": _time_step(),
        "decoded_per_second": _time_decoding(),
        "batched_per_second": _time_batches(),
    }


def tables(measured: dict[str, Any], cluster: Cluster) -> str:
    """The Markdown that stands between `BEGIN` and `END`."""
    traffic = {name: count_traffic(name) for name in NETWORKS}
    members = (2, 8, 256)
    wire = [
        ["network", "parameters", "all-reduces in a row", "MB summed"]
        + [f"MB sent by each of {n}" for n in members]
    ]
    for name, moved in traffic.items():
        wire.append(
            [f"`{name}`", f"{moved.parameters:,}", str(moved.calls)]
            + [f"{moved.bytes / 1e6:.1f}"]
            + [f"{moved.sent(n) / 1e6:.1f}" for n in members]
        )
    speed = BATCH_SIZE / measured["step_seconds"]
    sources = [measured["decoded_per_second"], measured["batched_per_second"]]
    first = "images a second of a device"
    feed = [[first, "cores that decode for 8", "cores that batch for 8"]]
    scale = [[first, *map(str, DEVICES)]]
    for factor in SPEEDS:
        rate = speed * factor
        cores = [8 * rate / source for source in sources]
        shares = [
            efficiency(BATCH_SIZE / rate, traffic[MODELED], n, cluster) for n in DEVICES
        ]
        feed.append([f"{rate:,.0f}", *(f"{number:,.1f}" for number in cores)])
        scale.append([f"{rate:,.0f}", *(f"{share:.1%}" for share in shares)])
    size = "×".join(map(str, NETWORKS[MODELED][0]))
    return "\n\n".join(
        [
            "A training step of each network, Adam, float32:",
            _markdown(wire),
            f"Measured on {measured['machine']}, jax {measured['jax']}: `{MODELED}` "
            f"trains on {speed:.1f} images of {size} a second, in batches of "
            f"{BATCH_SIZE}. One core decodes {sources[0]:,.0f} JPEGs a second from "
            f"{SOURCE_SIZE}×{SOURCE_SIZE} to that size, or puts {sources[1]:,.0f} "
            "decoded images a second into batches. So a host needs, for 8 devices "
            f"that are each 1, {SPEEDS[1]}, {SPEEDS[2]} or {SPEEDS[3]} times as quick "
            "as this machine:",
            _markdown(feed),
            "Expected efficiency by number of devices, each with "
            f"{BATCH_SIZE} images a step: {cluster.devices_per_host} devices a host "
            f"that send {cluster.device_gigabytes:g} GB/s to each other, hosts that "
            f"send {cluster.network_gigabytes:g} GB/s, "
            f"{cluster.latency_microseconds:g} µs a message:",
            _markdown(scale),
            f"![Expected efficiency over the number of devices]({FIGURE.name})",
        ]
    )


def figure(measured: dict[str, Any], cluster: Cluster) -> Figure:
    """Expected efficiency over the number of devices, a line a speed of device."""
    traffic = count_traffic(MODELED)
    chart = Figure(figsize=(6.4, 4.0), dpi=DPI, layout="constrained")
    axes = chart.subplots()
    colors = (BLUE, GREEN, ORANGE, VERMILION)
    for factor, color in zip(SPEEDS, colors, strict=True):
        seconds = measured["step_seconds"] / factor
        values = [efficiency(seconds, traffic, n, cluster) for n in DEVICES]
        label = f"{BATCH_SIZE / seconds:,.0f} images a second of a device"
        axes.plot(DEVICES, values, "o-", color=color, label=label, markersize=4)
    axes.axvline(cluster.devices_per_host, color=GRAY, linestyle=":", linewidth=1)
    axes.set(
        xlabel="Devices (dotted: one host)",
        ylabel="Efficiency",
        ylim=(0, 1.03),
        title=f"{MODELED}, {BATCH_SIZE} images a device: expected, not measured",
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(DEVICES, [str(n) for n in DEVICES])
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return chart


def document(text: str, measured: dict[str, Any], cluster: Cluster) -> str:
    """The page with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(measured, cluster)}\n\n{END}{after}"


def _time_step(repeats: int = 3) -> float:
    """The quickest of several steps on one device, in seconds."""
    step, shapes, batch = training_step(MODELED, axis_name=None, batch_size=BATCH_SIZE)
    compiled = jit_step(step)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(batch))
    zeros["mask"] += 1
    seconds = []
    for _ in range(repeats + 1):  # the first one compiles
        began = time.perf_counter()
        state, metrics = compiled(state, zeros)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _time_decoding() -> float:
    """JPEGs a second, by one thread, from memory."""
    source = io.BytesIO()
    person = next(iter(faces.PEOPLE))
    face = draw_image("faces", person, 0, size=SOURCE_SIZE)
    Image.fromarray(face).save(source, "JPEG", quality=90)
    height, width, channels = NETWORKS[MODELED][0]
    preprocessing = Preprocessing(size=(height, width), gray=channels == 1)
    return _calls_per_second(
        lambda: decode.decode_stored(source.getvalue(), preprocessing)
    )


def _time_batches(num_images: int = 1024) -> float:
    """Decoded images a second that are shuffled into batches, by one thread."""
    images = np.zeros((num_images, *NETWORKS[MODELED][0]), np.uint8)
    batches = Batches(
        np.arange(num_images),
        np.zeros(num_images, np.int32),
        lambda index, generator: images[index],
        batch_size=BATCH_SIZE,
        seed=0,
        train=True,
    )
    with batches.iterate() as iterator:
        return BATCH_SIZE * _calls_per_second(lambda: next(iterator))


def _calls_per_second(call: Callable[[], object], seconds: float = 2.0) -> float:
    call()
    began, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        call()
        calls += 1
    return calls / elapsed


def _sums_before(jaxpr: Jaxpr, begun: Sequence[int]) -> list[int]:
    """How many sums, one after another, each result of a trace has to wait for.

    begun: the same of each argument.
    """
    done = dict(zip(jaxpr.invars, begun, strict=True))

    def count(value: Var | Literal) -> int:
        return 0 if isinstance(value, Literal) else done.get(value, 0)

    for eqn in jaxpr.eqns:
        counts = [count(value) for value in eqn.invars]
        if (call := called(eqn)) is not None:
            results = _sums_before(call[0], counts)
        else:
            longest = max(counts, default=0) + _is_sum(eqn)
            results = [longest] * len(eqn.outvars)
        done.update(zip(eqn.outvars, results, strict=True))
    return [count(value) for value in jaxpr.outvars]


def _is_sum(eqn: JaxprEqn) -> bool:
    return "psum" in eqn.primitive.name


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table with a header; all columns but the first are figures."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


@dataclasses.dataclass(frozen=True)
class Options:
    """Makes the tables and the figure of docs/scaling.md."""

    measure: bool = False
    """Time this machine first; else the figures of the last time are used."""
    cluster: Cluster = dataclasses.field(default_factory=Cluster)


def main(options: Options) -> None:
    if options.measure:
        write_json(MEASURED, measure())
    measured = json.loads(MEASURED.read_text("utf-8"))
    text = document(DOCUMENT.read_text("utf-8"), measured, options.cluster)
    write_atomically(DOCUMENT, text.encode())
    png = io.BytesIO()
    figure(measured, options.cluster).savefig(png, format="png")
    write_atomically(FIGURE, png.getvalue())
    print(tables(measured, options.cluster))


if __name__ == "__main__":
    run(Options, main, None, "python -m benchmarks.scaling", __doc__)

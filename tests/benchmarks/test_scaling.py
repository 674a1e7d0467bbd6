"""What the model of scaling counts and expects, and that its page is made from it."""

import json

import pytest

from benchmarks import scaling
from benchmarks.scaling import Cluster, Traffic, efficiency, ring


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return scaling.count_traffic("vgg13_bn")


def test_all_that_a_step_adds_up_is_counted(traffic):
    """Gradients, batch norm's statistics and their gradients, and a few metrics."""
    assert traffic.parameters == 9_407_169
    channels = 2 * (64 + 128 + 256 + 512)
    metrics = traffic.bytes // 4 - traffic.parameters - 4 * channels
    assert 1 <= metrics <= 16
    # Of eight batch norms mean, then variance, then back; then the gradients.
    assert traffic.calls == 3 * 8 + 1


def test_ring():
    assert ring(1) == 0
    assert ring(2) == 1
    assert ring(256) == pytest.approx(2, abs=0.01)


def test_time_of_the_all_reduces():
    moved = Traffic(parameters=0, calls=3, bytes=10**9)
    cluster = Cluster(
        devices_per_host=4,
        device_gigabytes=10.0,
        network_gigabytes=1.0,
        latency_microseconds=1e6,
    )
    assert moved.seconds(1, cluster) == 0
    assert moved.seconds(4, cluster) == pytest.approx(2 * 3 / 4 / 10)
    # Two hosts: the network besides, and three calls up and down one hop.
    assert moved.seconds(8, cluster) == pytest.approx(2 * 3 / 4 / 10 + 1 + 3 * 2)


def test_efficiency_falls_with_devices_and_with_their_speed(traffic):
    cluster = Cluster()
    assert efficiency(1.0, traffic, 1, cluster) == 1
    values = [efficiency(0.01, traffic, n, cluster) for n in scaling.DEVICES]
    assert values == sorted(values, reverse=True)
    assert efficiency(0.001, traffic, 256, cluster) < values[-1]


def test_page_is_that_of_the_measured_figures(traffic):
    """The row of one network: tracing all of them takes long."""
    if not scaling.MEASURED.is_file():
        pytest.skip("python -m benchmarks.scaling --measure has not been run")
    page = scaling.DOCUMENT.read_text("utf-8")
    measured = json.loads(scaling.MEASURED.read_text("utf-8"))
    speed = scaling.BATCH_SIZE / measured["step_seconds"]
    assert f"trains on {speed:.1f} images" in page
    shares = [
        efficiency(measured["step_seconds"], traffic, n, Cluster())
        for n in scaling.DEVICES
    ]
    row = " | ".join(f"{share:.1%}" for share in shares)
    assert f"| {speed:,.0f} | {row} |" in page
    assert f"| `vgg13_bn` | {traffic.parameters:,} | {traffic.calls} |" in page
    assert scaling.FIGURE.is_file()

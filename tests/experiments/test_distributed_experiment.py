"""An experiment of two processes: one report, one checkpoint, one that prints."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from drawn_images import write_images

from jaxvision.classifier import load_classifier

REPOSITORY = Path(__file__).resolve().parents[2]


def test_two_processes_leave_what_one_leaves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write_images(tmp_path / "images")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "experiments.part2_mlp", "--data.root", str(root)]
    command += ["--epochs", "2", "--batch-size", "8", "--seeds", "0"]
    command += ["--distributed.coordinator", coordinator]
    command += ["--distributed.num-processes", "2", "--distributed.process-id"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    processes = [
        subprocess.Popen(
            [*command, str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        (out, err), (other_out, other_err) = (
            process.communicate(timeout=300) for process in processes
        )
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], (err, other_err)

    run = Path(out.splitlines()[-1])
    assert [path.name for path in run.parent.iterdir()] == [run.name]
    assert (run / "report.md").is_file()
    assert len((run / "history.jsonl").read_text().splitlines()) == 2
    # Gloo's threads say on all of them that they are there, across one another.
    for ours in ("seed", "images", "accuracy", "report", "checkpoint", run.name):
        assert ours in out
        assert ours not in other_out
    assert other_err == ""

    (checkpoint,) = (tmp_path / "checkpoints" / "part2_mlp").iterdir()
    assert checkpoint.name == run.name
    figures = json.loads((run / "results.json").read_text())["figures"]
    recorded = load_classifier(checkpoint).card.recorded
    assert recorded["test"]["accuracy"] == figures["test_accuracy"]["mean"]

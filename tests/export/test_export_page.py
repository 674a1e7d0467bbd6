"""The exported page: it resizes as Pillow does, and shows whatever classes are called.

The browser gets a runtime that is drawn here: the real one is npm's.
"""

import base64
import functools
import http.server
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_images import write_images
from exported_networks import HOSTILE, load_script, make_classifier
from PIL import Image

from jaxvision.data.decode import decode_image
from jaxvision.preprocessing import Preprocessing

pytest.importorskip("onnxruntime", reason="needs the extra export")

RESIZE = """
import { readFileSync } from "node:fs";
import { prepare } from "./resize.js";
const { images, preprocessings } = JSON.parse(readFileSync(0, "utf8"));
const found = preprocessings.map((preprocessing) => images.map((image) => {
  const data = Buffer.from(image.data, "base64");
  const seen = prepare({ ...image, data }, preprocessing);
  return Buffer.from(seen).toString("base64");
}));
process.stdout.write(JSON.stringify(found));
"""

RUNTIME = """
// Answers with the means of red, green and blue, by their sum.
export const env = { versions: { web: "VERSION" }, wasm: {} };
export class Tensor {
  constructor(type, data, dims) { Object.assign(this, { type, data, dims }); }
}
export const InferenceSession = {
  async create(path) {
    if (!(await fetch(path)).ok) throw new Error("no model");
    return {
      inputMetadata: [{ name: "image", shape: [2, 12, 12, 3] }],
      async run({ image }) {
        if (image.dims.join() !== "2,12,12,3") throw new Error("other dimensions");
        const sums = [0, 0, 0];
        image.data.slice(432).forEach((value, i) => { sums[i % 3] += value; });
        const total = sums[0] + sums[1] + sums[2];
        const one = sums.map((sum) => sum / total);
        return { probabilities: { data: Float32Array.from([...one, ...one]) } };
      },
    };
  },
};
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    return write_images(folder, per_class=2, size=24)


@pytest.fixture
def folder(photos: Path, tmp_path: Path) -> Path:
    classifier = make_classifier(photos, classes=HOSTILE)
    return classifier.export(tmp_path / "out", batch=2, web=True).folder


@pytest.mark.skipif(not shutil.which("node"), reason="there is no node")
def test_the_page_resizes_as_pillow_does(folder: Path, tmp_path: Path) -> None:
    """Within one level: every mode and filter, smaller and larger, color and gray.

    Pixels lie within 64 and 192: Pillow 13 resizes down first where that is less work,
    and bytes are cut between the two. In the same order the result is the same.
    """
    preprocessings = [
        Preprocessing((20, 24), resize_mode="stretch", interpolation="bicubic"),
        Preprocessing((20, 33), resize_mode="pad"),
        Preprocessing((23, 20), resize_mode="pad", interpolation="bicubic"),
        Preprocessing((20, 21), resize_mode="crop", resize=26, interpolation="bicubic"),
        Preprocessing((20, 20), resize_mode="crop", resize=27, gray=True),
    ]
    rng = np.random.default_rng(0)
    paths, images = [], []
    for shape in [(40, 31), (17, 30), (9, 5), (20, 24), (200, 301)]:
        pixels = rng.integers(64, 192, (*shape, 3), np.uint8)
        paths.append(tmp_path / f"{len(paths)}.png")
        Image.fromarray(pixels).save(paths[-1])
        data = base64.b64encode(np.dstack([pixels, pixels[..., :1]]).tobytes())
        images.append({"width": shape[1], "height": shape[0], "data": data.decode()})
    question = {
        "images": images,
        "preprocessings": [p.to_dict() for p in preprocessings],
    }
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", RESIZE],
        input=json.dumps(question),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    same = 0
    for preprocessing, row in zip(preprocessings, json.loads(done.stdout), strict=True):
        for path, text in zip(paths, row, strict=True):
            shape = (*preprocessing.size, preprocessing.channels)
            seen = np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)
            off = np.abs(seen.astype(int) - decode_image(path, preprocessing))
            assert off.max() <= 1
            same += not off.any()
    assert same >= 15  # of 25


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def tab(browser: Any, folder: Path) -> Iterator[Any]:
    """The served page in a tab that opens no dialog and asks nobody else."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/"
        context = browser.new_context(base_url=address)
        context.set_default_timeout(30_000)
        tab = context.new_page()
        wrong: list[str] = []
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        tab.on(
            "request",
            lambda request: (
                request.url.startswith(("data:", address)) or wrong.append(request.url)
            ),
        )
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        yield tab
        context.close()
        server.shutdown()
        thread.join()
    assert wrong == []


def put_runtime(folder: Path, version: str) -> None:
    place = folder / "node_modules/onnxruntime-web/dist"
    place.mkdir(parents=True, exist_ok=True)
    text = RUNTIME.replace("VERSION", version)
    (place / "ort.wasm.bundle.min.mjs").write_text(text)


def wanted_version(folder: Path) -> str:
    page = json.loads((folder / "package.json").read_text())
    return page["dependencies"]["onnxruntime-web"]


def test_an_image_is_classified(tab: Any, folder: Path, photos: Path) -> None:
    put_runtime(folder, wanted_version(folder))
    tab.goto("/")
    red = photos / "red" / "00.png"
    tab.locator("#drop").wait_for()
    tab.set_input_files("#file", red)
    tab.locator("#classes li").first.wait_for()
    seen = load_script(folder).read(str(red))
    means = seen.reshape(-1, 3).sum(0) / seen.sum()
    rows = [row.split("\n") for row in tab.locator("#classes li").all_inner_texts()]
    order = np.argsort(-means)
    labels = [HOSTILE[i] for i in order]
    assert [row[0].strip() for row in rows] == [name.strip() for name in labels]
    assert [row[-1] for row in rows] == [f"{100 * means[i]:.1f} %" for i in order]
    assert tab.locator("main img").count() == 0
    # What the page shows is what the network sees.
    shown = tab.evaluate("document.getElementById('seen').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), seen)
    # Bad files are one line, and the page goes on.
    tab.set_input_files("#file", folder / "labels.json")
    tab.get_by_text("That is no image that this browser reads.").wait_for()
    tab.set_input_files("#file", red)
    tab.get_by_text("It says").wait_for()
    for width in (400, 1280):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_runtime_of_another_version_is_refused(tab: Any, folder: Path) -> None:
    tab.goto("/")
    tab.get_by_text("ONNX Runtime is not beside this page. Run npm install").wait_for()
    put_runtime(folder, "0.0.1")
    tab.reload()
    wanted = wanted_version(folder)
    tab.get_by_text(
        f"0.0.1 lies beside this page, which is made for {wanted}"
    ).wait_for()
    assert tab.locator("#drop").is_hidden()

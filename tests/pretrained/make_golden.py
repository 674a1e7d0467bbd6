"""Writes the golden files: what the original implementations answer, from torch.

    python tests/pretrained/make_golden.py

Needs torch and efficientnet-lite-pytorch (the extra `parity`). Writes
`golden_<network>.npz` beside this file and prints the few logits that
`jaxvision/pretrained/golden.py` keeps. The tests compare with these files where torch
is not installed.
"""

from pathlib import Path

import numpy as np
from drawn_inputs import alexnet_state_dict, normalized_images
from torch_references import alexnet, answer, efficientnet_lite0

from jaxvision.pretrained.golden import GOLDEN_CLASSES

HERE = Path(__file__).parent


def main() -> None:
    lite0 = answer(efficientnet_lite0(), normalized_images("efficientnet_lite0"))
    np.savez_compressed(HERE / "golden_efficientnet_lite0.npz", logits=lite0)
    print(tuple(round(float(lite0[0, i]), 5) for i in GOLDEN_CLASSES))
    logits = answer(alexnet(alexnet_state_dict()), normalized_images("alexnet"))
    np.savez_compressed(HERE / "golden_alexnet.npz", logits=logits)


if __name__ == "__main__":
    main()

"""The thousand classes of ImageNet's challenge (ILSVRC 2012).

They stand in the order of the sorted WordNet ids, which is that of the logits of every
network here. A name is the first word of its WordNet synset, as Keras and torchvision
have it; where two have the same, one has another word, as in torchvision: "crane bird"
beside "crane", "maillot tank suit" beside "maillot".
"""

import functools
from importlib.resources import files


@functools.cache
def imagenet_classes() -> dict[str, str]:
    """WordNet id, such as "n01440764", -> name, such as "tench"; all names differ."""
    text = (files("jaxvision.pretrained") / "imagenet_classes.tsv").read_text("utf-8")
    rows = (line.partition("\t") for line in text.splitlines())
    return {wordnet_id: name for wordnet_id, _, name in rows}

"""The multilayer perceptron of the transfer-learning experiments."""

from functools import partial
from typing import ClassVar, Literal

import jax
from flax import linen as nn

from jaxvision.errors import InputError
from jaxvision.models.backbone import Backbone, Layer
from jaxvision.models.layers import Dropout, Initializer, ReLU

INITIALIZERS: dict[str, Initializer] = {
    # Glorot & Bengio 2010.
    "xavier_uniform": nn.initializers.xavier_uniform(),
    # He et al. 2015 (arXiv:1502.01852), gain of the ReLU.
    "kaiming_uniform": nn.initializers.he_uniform(),
}


class MLP(Backbone):
    """`[B, ...]` -> `[B, hidden]`: all values of an image, one hidden layer.

    On 28x28x3 with 300 hidden units and 40 classes: 717,940 parameters.
    """

    rates: ClassVar[tuple[str, ...]] = ("dropout_rate",)

    hidden: int = 300
    """Units of the hidden layer."""
    batch_norm: bool = False
    """Batch norm before the ReLU."""
    dropout_rate: float | jax.Array = 0.0
    """Dropout after the ReLU."""
    initializer: Literal["xavier_uniform", "kaiming_uniform"] = "xavier_uniform"
    """How kernels are drawn, the head's too; biases start at zero."""

    def check(self) -> None:
        if self.hidden < 1:
            raise InputError(f"hidden is {self.hidden}; it must be at least 1")
        if self.initializer not in INITIALIZERS:
            raise InputError(
                f"initializer is {self.initializer!r}; there are:"
                f" {', '.join(INITIALIZERS)}"
            )

    def head_init(self) -> Initializer:
        return INITIALIZERS[self.initializer]

    def layers(self, train: bool) -> list[Layer]:
        dense = partial(
            nn.Dense, kernel_init=INITIALIZERS[self.initializer], dtype=self.dtype
        )
        norm = self.make_norm(train)

        def fc1(x: jax.Array) -> jax.Array:
            x = dense(self.hidden, name="fc1")(x)
            if self.batch_norm:
                x = norm(name="bn1")(x)
            return Dropout(self.dropout_rate, train, name="dropout1")(ReLU()(x))

        return [
            ("flatten", lambda x: x.reshape(x.shape[0], -1)),
            ("fc1", fc1),
        ]


VARIANTS = {"mlp": MLP}

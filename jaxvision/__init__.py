"""Classic convolutional networks and transfer learning for images, in JAX.

Importing this package imports nothing heavy; the parts are imported by name:
`jaxvision.models`, `jaxvision.data`, `jaxvision.pretrained`, `jaxvision.train`,
`jaxvision.transfer`, `jaxvision.report`.
"""

__version__ = "0.1.0"

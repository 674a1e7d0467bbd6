"""Trained networks for where there is no JAX: an ONNX model, and what runs it.

`trace` writes a traced network down as ONNX's operations, `fold` makes fewer of them,
`model` the ONNX model, and `folder` the folder, once the model has been seen to answer
as the network does. What lies in `files` is written into it as it is.
"""

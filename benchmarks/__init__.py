"""How fast jaxvision is, beside PyTorch, on the machine at hand: `make bench`."""

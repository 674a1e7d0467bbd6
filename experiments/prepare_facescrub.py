"""`jaxvision data facescrub`, as a module."""

import sys

from jaxvision.cli.data import facescrub

if __name__ == "__main__":
    facescrub(sys.argv[1:])

"""`jaxvision evaluate`, as a module."""

import sys

from jaxvision.cli.evaluate import main

if __name__ == "__main__":
    main(sys.argv[1:])

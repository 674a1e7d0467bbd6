"""`jaxvision predict`, as a module."""

import sys

from jaxvision.cli.predict import main

if __name__ == "__main__":
    main(sys.argv[1:])

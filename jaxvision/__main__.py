"""`python -m jaxvision` is the command `jaxvision`."""

from jaxvision.cli.main import main

if __name__ == "__main__":
    main()

"""The command line: the one place that knows flags.

`main.py` has the table of subcommands, each with a small file of its own; `flags.py`
makes flags of settings and names settings by their flags; `experiment.py` is the
command line of an experiment.
"""

"""The experiments: a module each, which declares an `EXPERIMENT` and runs it.

`catalog` collects them, `all` runs them, `report` shows what was found.
"""

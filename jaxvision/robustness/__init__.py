"""How much of its accuracy a trained network keeps when its images are changed.

`measure` counts, `report` writes the run folder, `config` holds its settings.
"""

"""What a run leaves behind and what it shows on the way.

`run_folder` writes the files, `markdown` ties them together in `report.md`,
`progress` watches the run on a terminal or in a log.
"""

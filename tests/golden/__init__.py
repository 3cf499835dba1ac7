"""What becomes of each value of each Spanner type, and of each change by the value capture type of its stream.

Each file is one example to read: values as Spanner writes them, and what BigQuery has of them. `python -m tests.golden`
writes the table of docs/types.md from them; with `--update` it first writes what the pipeline makes of the values into
the files, so that a change of it shows as a difference of these files.
"""

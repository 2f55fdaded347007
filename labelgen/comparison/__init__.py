"""`labelgen compare-labels`: one table of scores over caches of the same data.

Start with `counting.compare`, which reads the caches; `table` writes the result, `cli` has the command.
"""

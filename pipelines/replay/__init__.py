"""`labelgen replay`: make the groups of one sample again, without Ray, and compare them with what is sealed.

`place` finds the sample in the cache, `rerun` makes its groups, `compare` compares arrays, and `cli` has the command.
"""

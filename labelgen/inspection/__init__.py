"""The audit of a cache: statistics streamed shard by shard, and what a person should look at first.

Read in this order: `statistics` counts one sample, `measures` turns counts into comparable numbers, `survey` streams
the shards, `oddities` and `diagnosis` say what stands out and why, `findings` puts the report together, and `terminal`,
`page`, `pictures` and `recording` show it.
"""

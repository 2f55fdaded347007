"""The audit of a cache, `labelgen inspect`: what it holds, whether that is complete, whole and plausible.

Read in this order: `report` is the result; `counting` counts documents and samples, shard by shard; `judging` finds
outliers, diagnoses classes and gives the verdict; `audit` puts the report together; `showing` prints and draws it.
`command` has the functions that the command calls.
"""

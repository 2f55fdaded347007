"""The cache contract that `labelgen` writes and `trainer` reads.

`layout` is the table of groups and arrays, `documents` are the JSON documents, `array_storage` says how an array is
stored on disk. `store` opens, writes and reads a cache, `row_reader` reads parts of arrays, `lock` admits one run at a
time. `audit` finds problems without reading values, `validate` reads them too, and `repair` removes what they found.
`taxonomy` and `scoring` are shared by all programs that handle labels.
"""

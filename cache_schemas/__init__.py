"""The cache contract that `labelgen` writes and `trainer` reads: layout, store, validation, taxonomies, scoring."""

"""Count what a cache holds, from its documents and shard by shard; nothing here judges whether a number is good."""

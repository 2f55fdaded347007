"""The card of a cache: `facts` collects what it says, `readme` writes it for people, `croissant` for programs."""

"""`labelgen query`: what of a cache fits a sentence best. `ranking` reads the cache, `page` shows what was found."""

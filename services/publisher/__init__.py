"""One process per output: takes rows from store_forward and delivers them."""

"""The makers of the two example pairs: each writes a whole project folder. No other part of graft depends on them."""

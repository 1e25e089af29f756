"""The makers of the two example pairs: each writes a complete project folder. The rest of graft knows neither."""

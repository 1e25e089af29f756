"""The laboratory: demo, study, example pairs, embedded servers. No room imports it; the image does not have it."""

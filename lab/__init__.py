"""The laboratory: demo, study, example pairs, embedded services. Nothing imports it; the image does not have it."""

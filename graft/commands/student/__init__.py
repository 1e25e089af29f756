"""``graft student``: learner, scorer, and the versions between them."""

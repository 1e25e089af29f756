"""Two related domains whose truth is known: a video platform as the source, a music app as the target."""

"""The student in four rooms: versions, evaluate, learn, serve."""

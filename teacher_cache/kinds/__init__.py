"""Teachers of every kind behind one interface (teacher_cache.teacher), and what loads the project's."""

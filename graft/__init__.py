"""The program: command line, settings, project file, embedded services, demo."""

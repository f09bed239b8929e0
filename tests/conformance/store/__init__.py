"""One suite for every document store: a backend is a test module that subclasses the classes and gives a factory."""

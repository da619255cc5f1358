"""The parts of EmbeddedServer: finding a program, its configuration and its process."""

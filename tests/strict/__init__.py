"""Strict stand-ins for Google's services: what the emulators let pass, they refuse."""

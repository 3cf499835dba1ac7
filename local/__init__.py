"""The same program on one machine: emulators, engine, provider, traffic, and the commands that run them."""

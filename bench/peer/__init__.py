"""The product beside Beam's own connector in Java, on one machine: `make bench-peer`, then `python -m bench.peer`.

Peer.java    SpannerIO.readChangeStream on Java's direct runner; a line of a file for each change
pom.xml      what it is built with
program.py   builds it, and starts it
__main__.py  runs both in turn, and prints them side by side
"""

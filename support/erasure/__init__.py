"""Erasure of a customer: recorded, redacted wherever it is kept, and never brought back. `work.py` has the steps."""

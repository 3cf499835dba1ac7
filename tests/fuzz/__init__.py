"""Inputs by the million through decode, mask and encode: `python -m tests.fuzz --hidden 1000000 --harmless 1000000`.

`hidden` hides card data in a change record and knows what it hid; `harmless` makes what must come out byte for byte.
Neither asks the scanner: the generator is the oracle.
"""

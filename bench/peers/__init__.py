"""The other side of each question: what the peers' own documentation says to write, one module per peer."""

"""How good a network's answers are, and how far to trust them."""

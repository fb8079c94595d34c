"""From files to labelled pixels: finding, decoding, splitting and augmenting pictures."""

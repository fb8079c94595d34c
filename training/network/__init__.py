"""The networks: our own, and the pretrained ones with their registry."""

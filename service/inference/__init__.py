"""From pictures to probabilities: versions, engines, batches and decoding. It knows of no HTTP."""

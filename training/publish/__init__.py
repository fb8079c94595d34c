"""From a trained network to a version on disk: export, int8, the gate and the model card."""

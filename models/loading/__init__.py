"""Reading weights: checkpoints in the formats they are published in, and the network's shape off its weights."""

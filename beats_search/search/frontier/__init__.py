"""The frontier sampler's parts: what the study holds in, the proposal with the most expected gain out."""

"""Packages: a model in the form that other servers take it, Triton and DeepStream. What they run is `labelling`."""

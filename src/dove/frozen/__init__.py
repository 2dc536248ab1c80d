"""Frozen image networks by name: the features behind perceptual distances, alignment and Frechet distances."""

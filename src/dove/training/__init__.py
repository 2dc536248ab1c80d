"""Objectives, trainer, resumable state and logs: everything that changes weights."""

"""Tokens on disk: a folder of parquet shards, and a PyTorch dataset that reads it."""

from dove.store.dataset import TokenDataset, TokenRecord
from dove.store.shards import Manifest, Shard, TokenStore

__all__ = ["Manifest", "Shard", "TokenDataset", "TokenRecord", "TokenStore"]

"""Adapters to what other libraries and published files expect. Only commands and tests import these modules."""

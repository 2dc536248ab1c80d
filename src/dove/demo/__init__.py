"""The web page of ``dove demo``: what it computes (``session``) and what it looks like (``page``)."""

"""The web page of ``dove demo``: what it computes (``encoded``) and what it looks like (``page``)."""

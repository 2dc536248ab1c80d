"""What other libraries expect. Nothing in the package imports these modules; who wants one does."""

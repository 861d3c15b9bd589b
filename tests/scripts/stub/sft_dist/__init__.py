"""A package of its own, so that it wins over the installed one when it comes first."""

"""Masks in the forms of other tools; each is imported only when its form is asked for."""

"""The composers: each takes validated parameters, drives one experiment on real servers and returns its run."""

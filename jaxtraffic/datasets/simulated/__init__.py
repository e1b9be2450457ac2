"""Simulated traffic, and writers that lay it out as the public data sets lie on disk.

It is the source of the demonstrations and of the tests' fixtures. Nothing measured on it is a result about real
traffic, and everything made from it carries source "simulated".
"""

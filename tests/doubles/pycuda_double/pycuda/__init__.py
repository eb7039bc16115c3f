"""A test double of the package pycuda; see driver.py beside this."""

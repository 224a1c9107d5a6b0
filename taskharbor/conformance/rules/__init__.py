"""The rules, one part of the contract per module."""

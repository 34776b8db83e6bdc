"""Test sets against their labels."""

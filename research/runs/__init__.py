"""A run: what decides it, its parts, its stages one after another, its end; and runs that begin
from another."""

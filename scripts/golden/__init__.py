"""The cases of the golden files, one module for each lineage of Vision Transformers."""

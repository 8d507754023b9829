"""Evaluation of predictions: metrics, tables and overlay pictures."""

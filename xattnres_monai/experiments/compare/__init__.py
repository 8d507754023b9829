"""The command ``compare``, which trains and evaluates variants and seeds of a bundle under equal conditions."""

"""Entry points: compose a configuration, call the library, write the results."""

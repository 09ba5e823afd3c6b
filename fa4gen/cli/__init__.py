"""The command line: one module per group of commands; :mod:`fa4gen.cli.app` puts them together.

Commands parse, call the library, and hand a view to :mod:`fa4gen.cli.output`; nothing is decided
here. Heavy packages are imported inside the commands, so that ``--help`` is quick.
"""
